//! The methods of IpamDriver: pools and addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use netd_api::v1::{Network, Pool, ReserveAddressRequest};
use serde_json::json;

use super::{
    error::{DriverError, DriverResult},
    netd::NetdClient,
    options::{address, subnet},
    types::{ReleaseAddress, RequestAddress, RequestPool},
};
use crate::excerpt::escaped;

/// netd's only address space.
pub(super) const ADDRESS_SPACE: &str = "netd";
/// `--ipam-opt netd.network=NAME`
const NETWORK_OPTION: &str = "netd.network";
const ADDRESS_TYPE_OPTION: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
/// Separates the subnet from its `--ip-range` in the id of a pool.
const RANGE_SEPARATOR: char = '@';

pub(super) async fn request_pool(netd: &NetdClient, request: RequestPool) -> DriverResult {
    if let Some(unknown) = request.options.keys().find(|key| *key != NETWORK_OPTION) {
        let text = format!("there is no such option; netd knows {NETWORK_OPTION}");
        return Err(DriverError::field(&format!("--ipam-opt {}", escaped(unknown)), text));
    }
    let requested = match request.pool.as_str() {
        "" => None,
        text => Some(subnet("--subnet", text)?.trunc()),
    };
    let (net, gateway) = match (request.options.get(NETWORK_OPTION), requested) {
        (Some(name), requested) => {
            let network = netd.network(name).await?;
            let (net, pool) = pool_of(&network, requested, request.v6)?;
            if requested.is_none() && !netd.pool_backoff.try_offer(net) {
                let text = format!(
                    "dockerd takes {net}, to which this host has a route, only if it is named; \
                     add --subnet {net}"
                );
                return Err(DriverError::field("--subnet", text));
            }
            (net, Some(format!("{}/{}", pool.gateway, net.prefix_len())))
        }
        (None, Some(requested)) => (requested, None),
        (None, None) => (unused_subnet(netd, request.v6).await?, None),
    };
    let range = match request.sub_pool.as_str() {
        "" => String::new(),
        text => {
            let range = subnet("--ip-range", text)?.trunc();
            if !net.contains(&range) {
                let text = format!("{range} is not within the subnet {net}");
                return Err(DriverError::field("--ip-range", text));
            }
            format!("{RANGE_SEPARATOR}{range}")
        }
    };
    // The gateway of an existing network is fixed, so Docker must not choose one.
    let data = gateway.map_or(json!({}), |gateway| json!({ GATEWAY: gateway }));
    Ok(json!({"PoolID": format!("{net}{range}"), "Pool": net.to_string(), "Data": data}))
}

fn pool_of(
    network: &Network,
    requested: Option<IpNet>,
    v6: bool,
) -> Result<(IpNet, &Pool), DriverError> {
    let pools = network.pools.iter().filter_map(|p| Some((p.subnet.parse::<IpNet>().ok()?, p)));
    let fits = |net: &IpNet| match requested {
        Some(requested) => requested == *net,
        None => matches!(net, IpNet::V6(_)) == v6,
    };
    pools.into_iter().find(|(net, _)| fits(net)).ok_or_else(|| {
        let subnets: Vec<&str> = network.pools.iter().map(|p| p.subnet.as_str()).collect();
        let text = format!(
            "the netd network \"{}\" has the subnets {}, not the requested one",
            network.name,
            subnets.join(", ")
        );
        DriverError::field(&format!("--ipam-opt {NETWORK_OPTION}"), text)
    })
}

/// A subnet for a network that was created without `--subnet`. When two networks are created
/// at the same moment with the same subnet, netd refuses the second.
async fn unused_subnet(netd: &NetdClient, v6: bool) -> Result<IpNet, DriverError> {
    let known = netd.networks_and_hosts().await?;
    let pools = known.networks.iter().filter_map(|status| status.network.as_ref());
    let pools = pools.flat_map(|network| network.pools.iter().map(|pool| &pool.subnet));
    let hosts = |routed| {
        let hosts = known.host_networks.iter().filter(move |host| host.routed == routed);
        hosts.map(|host| &host.subnet)
    };
    let read = |text: &String| text.parse::<IpNet>().ok().map(|net| net.trunc());
    let external = known.external_pools.iter().map(|pool| &pool.subnet);
    let used: Vec<IpNet> = pools.chain(hosts(false)).chain(external).filter_map(read).collect();
    // A broader route that merely leads through, such as the default route, is no reason.
    let routed: Vec<IpNet> = hosts(true).filter_map(read).collect();
    let overlaps = |net: &IpNet| {
        let default = |other: &IpNet| other.prefix_len() == 0;
        let used = used.iter().filter(|other| !default(other));
        used.into_iter().any(|other| other.contains(net) || net.contains(other))
            || routed.iter().any(|other| net.contains(other))
    };
    let mut candidates = (0..=u8::MAX).filter_map(|n| {
        let text = if v6 { format!("fd6e:6574:64:{n:x}::/64") } else { format!("10.210.{n}.0/24") };
        text.parse::<IpNet>().ok()
    });
    candidates.find(|net| !overlaps(net) && netd.pool_backoff.try_offer(*net)).ok_or_else(|| {
        DriverError::field(
            "--subnet",
            "all subnets that netd chooses from are in use; add --subnet",
        )
    })
}

pub(super) async fn request_address(netd: &NetdClient, request: RequestAddress) -> DriverResult {
    let (net, range) = parse_pool_id(&request.pool_id)?;
    let requested = match request.address.as_str() {
        "" => None,
        text => Some(address("Address", text)?),
    };
    if let Some(ip) = requested.filter(|ip| !net.contains(ip)) {
        return Err(DriverError::field("Address", format!("{ip} is not in the pool {net}")));
    }
    let is_gateway = request.options.get(ADDRESS_TYPE_OPTION).is_some_and(|kind| kind == GATEWAY);
    let requested = requested.or_else(|| is_gateway.then(|| default_gateway(&net)));
    if let Some(ip) = requested.filter(|_| is_gateway)
        && is_known(netd, &net).await?
    {
        // The network itself keeps its gateway for as long as it exists.
        return Ok(json!({"Address": format!("{ip}/{}", net.prefix_len()), "Data": {}}));
    }
    // A requested address may be outside --ip-range.
    let from = if requested.is_some() { net } else { range.unwrap_or(net) };
    let request = ReserveAddressRequest {
        subnet: from.to_string(),
        address: requested.map(|ip| ip.to_string()).unwrap_or_default(),
        // Where netd has no such network, it is being created, or has another driver.
        external_subnet: net.to_string(),
    };
    Ok(json!({"Address": netd.reserve(request).await?, "Data": {}}))
}

fn default_gateway(net: &IpNet) -> IpAddr {
    match net.hosts().next() {
        // The first address of an IPv6 subnet is the subnet-router anycast address
        // (RFC 4291, section 2.6.1).
        Some(ip) if ip == net.network() => net.hosts().nth(1).unwrap_or(ip),
        Some(ip) => ip,
        None => net.addr(),
    }
}

async fn is_known(netd: &NetdClient, net: &IpNet) -> Result<bool, DriverError> {
    let networks = netd.networks().await?;
    let mut pools = networks.iter().filter_map(|n| n.network.as_ref()).flat_map(|n| &n.pools);
    Ok(pools.any(|pool| pool.subnet.parse::<IpNet>().is_ok_and(|own| own == *net)))
}

pub(super) async fn release_address(netd: &NetdClient, request: ReleaseAddress) -> DriverResult {
    let ip = address("Address", &request.address)?;
    netd.release(ip.to_string()).await?;
    Ok(json!({}))
}

fn parse_pool_id(id: &str) -> Result<(IpNet, Option<IpNet>), DriverError> {
    let (net, range) = match id.split_once(RANGE_SEPARATOR) {
        Some((net, range)) => (net, Some(range)),
        None => (id, None),
    };
    let range = range.map(|range| subnet("PoolID", range)).transpose()?;
    Ok((subnet("PoolID", net)?, range))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_pool_holds_its_subnet_and_range() {
        let (net, part) = parse_pool_id("10.1.0.0/16@10.1.5.0/24").unwrap();
        assert_eq!(
            (net.to_string(), part.unwrap().to_string()),
            ("10.1.0.0/16".into(), "10.1.5.0/24".into())
        );
        assert!(parse_pool_id("10.1.0.0/16").unwrap().1.is_none());
        for bad in ["", "@", "10.1.0.0", "10.1.0.0/16@", "10.1.0.0/16@x"] {
            assert!(parse_pool_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pool_of_the_family_is_chosen_unless_one_is_named() {
        let pool = |subnet: &str| Pool { subnet: subnet.into(), ..Pool::default() };
        let network =
            Network { pools: vec![pool("10.1.0.0/16"), pool("fd00::/64")], ..Network::default() };
        assert_eq!(pool_of(&network, None, true).unwrap().0.to_string(), "fd00::/64");
        let named = pool_of(&network, Some("10.1.0.0/16".parse().unwrap()), false).unwrap();
        assert_eq!(named.0.to_string(), "10.1.0.0/16");
        assert!(pool_of(&network, Some("10.2.0.0/16".parse().unwrap()), false).is_err());
    }
}
