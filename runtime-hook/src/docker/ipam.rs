//! IpamDriver: pools and addresses.

use ipnet::IpNet;
use netd_api::v1::{Network, Pool, ReserveAddressRequest};
use serde_json::json;

use super::{
    Netd,
    options::{address, subnet},
    server::{Answer, Failure, shown},
    wire::{ReleaseAddress, RequestAddress, RequestPool},
};

/// netd has one space of addresses.
pub const SPACE: &str = "netd";
/// `--ipam-opt netd.network=NAME`
const NETWORK: &str = "netd.network";
const KIND: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
/// Between the subnet and the part of it in a pool's id.
const PART: char = '@';

pub async fn request_pool(netd: &Netd, request: RequestPool) -> Answer {
    if let Some(unknown) = request.options.keys().find(|key| *key != NETWORK) {
        let text = format!("there is no such option; there is {NETWORK}");
        return Err(Failure::field(&format!("--ipam-opt {}", shown(unknown)), text));
    }
    let asked = match request.pool.as_str() {
        "" => None,
        text => Some(subnet("--subnet", text)?.trunc()),
    };
    let (net, gateway) = match (request.options.get(NETWORK), asked) {
        (Some(name), asked) => {
            let network = netd.network(name).await?;
            let (net, pool) = pool_of(&network, asked, request.v6)?;
            if asked.is_none() && !netd.offers.offer(net) {
                let text = format!("this dockerd wants it named: add --subnet {net}");
                return Err(Failure::field("--subnet", text));
            }
            (net, Some(format!("{}/{}", pool.gateway, net.prefix_len())))
        }
        (None, Some(asked)) => (asked, None),
        (None, None) => (free(netd, request.v6).await?, None),
    };
    let part = match request.sub_pool.as_str() {
        "" => String::new(),
        text => {
            let part = subnet("--ip-range", text)?.trunc();
            if !net.contains(&part) {
                let text = format!("{part} is not a part of the subnet {net}");
                return Err(Failure::field("--ip-range", text));
            }
            format!("{PART}{part}")
        }
    };
    // The gateway of a network that exists is not Docker's to choose.
    let data = gateway.map_or(json!({}), |gateway| json!({ GATEWAY: gateway }));
    Ok(json!({"PoolID": format!("{net}{part}"), "Pool": net.to_string(), "Data": data}))
}

fn pool_of(network: &Network, asked: Option<IpNet>, v6: bool) -> Result<(IpNet, &Pool), Failure> {
    let pools = network.pools.iter().filter_map(|p| Some((p.subnet.parse::<IpNet>().ok()?, p)));
    let fits = |net: &IpNet| match asked {
        Some(asked) => asked == *net,
        None => matches!(net, IpNet::V6(_)) == v6,
    };
    pools.into_iter().find(|(net, _)| fits(net)).ok_or_else(|| {
        let subnets: Vec<&str> = network.pools.iter().map(|p| p.subnet.as_str()).collect();
        let text = format!(
            "the netd network \"{}\" has the pools {}, and not the one that is asked for",
            network.name,
            subnets.join(", ")
        );
        Failure::field(&format!("--ipam-opt {NETWORK}"), text)
    })
}

/// A subnet for a network whose creator does not care. Of two that are created at the same
/// moment, netd refuses one.
async fn free(netd: &Netd, v6: bool) -> Result<IpNet, Failure> {
    let networks = netd.networks().await?;
    let pools = networks.iter().filter_map(|status| status.network.as_ref());
    let pools = pools.flat_map(|network| &network.pools);
    let used: Vec<IpNet> = pools.filter_map(|pool| pool.subnet.parse().ok()).collect();
    let overlaps =
        |net: &IpNet| used.iter().any(|other| other.contains(net) || net.contains(other));
    let mut all = (0..=u8::MAX).filter_map(|n| {
        let text = if v6 { format!("fd6e:6574:64:{n:x}::/64") } else { format!("10.210.{n}.0/24") };
        text.parse::<IpNet>().ok()
    });
    all.find(|net| !overlaps(net) && netd.offers.offer(*net)).ok_or_else(|| {
        Failure::field("--subnet", "every subnet that netd chooses from is used; give one")
    })
}

pub async fn request_address(netd: &Netd, request: RequestAddress) -> Answer {
    let (net, part) = pool_id(&request.pool_id)?;
    let asked = match request.address.as_str() {
        "" => None,
        text => Some(address("Address", text)?),
    };
    if let Some(ip) = asked.filter(|ip| !net.contains(ip)) {
        return Err(Failure::field("Address", format!("{ip} is not in the pool {net}")));
    }
    // A gateway is its network's, which holds it for as long as there is one.
    if request.options.get(KIND).is_some_and(|kind| kind == GATEWAY) {
        let first = net.hosts().next().map_or(net.addr(), |first| match first {
            // The first address of an IPv6 subnet is every router's (RFC 4291, 2.6.1).
            ip if ip == net.network() => net.hosts().nth(1).unwrap_or(ip),
            ip => ip,
        });
        let ip = asked.unwrap_or(first);
        return Ok(json!({"Address": format!("{ip}/{}", net.prefix_len()), "Data": {}}));
    }
    if let Some(ip) = asked
        && !is_known(netd, &net).await?
    {
        // --aux-address: the network is still to be created, and reserves it then.
        return Ok(json!({"Address": format!("{ip}/{}", net.prefix_len()), "Data": {}}));
    }
    // An address that is asked for may lie outside of --ip-range.
    let from = if asked.is_some() { net } else { part.unwrap_or(net) };
    let address = asked.map(|ip| ip.to_string()).unwrap_or_default();
    let request = ReserveAddressRequest { subnet: from.to_string(), address };
    Ok(json!({"Address": netd.reserve(request).await?, "Data": {}}))
}

async fn is_known(netd: &Netd, net: &IpNet) -> Result<bool, Failure> {
    let networks = netd.networks().await?;
    let mut pools = networks.iter().filter_map(|n| n.network.as_ref()).flat_map(|n| &n.pools);
    Ok(pools.any(|pool| pool.subnet.parse::<IpNet>().is_ok_and(|own| own == *net)))
}

pub async fn release_address(netd: &Netd, request: ReleaseAddress) -> Answer {
    let ip = address("Address", &request.address)?;
    netd.release(ip.to_string()).await?;
    Ok(json!({}))
}

fn pool_id(id: &str) -> Result<(IpNet, Option<IpNet>), Failure> {
    let (net, part) = id.split_once(PART).map_or((id, None), |(net, part)| (net, Some(part)));
    let net = subnet("PoolID", net)?;
    let part = part.map(|part| subnet("PoolID", part)).transpose()?;
    Ok((net, part))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_id_says_all_that_is_needed() {
        let (net, part) = pool_id("10.1.0.0/16@10.1.5.0/24").unwrap();
        assert_eq!(
            (net.to_string(), part.unwrap().to_string()),
            ("10.1.0.0/16".into(), "10.1.5.0/24".into())
        );
        assert!(pool_id("10.1.0.0/16").unwrap().1.is_none());
        for bad in ["", "@", "10.1.0.0", "10.1.0.0/16@", "10.1.0.0/16@x"] {
            assert!(pool_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_pool_of_the_family_is_taken_unless_one_is_named() {
        let pool = |subnet: &str| Pool { subnet: subnet.into(), ..Pool::default() };
        let network =
            Network { pools: vec![pool("10.1.0.0/16"), pool("fd00::/64")], ..Network::default() };
        assert_eq!(pool_of(&network, None, true).unwrap().0.to_string(), "fd00::/64");
        let named = pool_of(&network, Some("10.1.0.0/16".parse().unwrap()), false).unwrap();
        assert_eq!(named.0.to_string(), "10.1.0.0/16");
        assert!(pool_of(&network, Some("10.2.0.0/16".parse().unwrap()), false).is_err());
    }
}
