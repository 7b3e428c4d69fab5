//! The methods of NetworkDriver about networks.

use ipnet::IpNet;
use netd_api::v1::{Driver, Network, Pool};
use serde_json::json;

use super::{
    error::{DriverError, DriverResult},
    ipam::ADDRESS_SPACE,
    netd::NetdClient,
    options::{NetworkOptions, address, subnet},
    types::{AllocateNetwork, CreateNetwork, DeleteNetwork, IpamData},
};
use crate::excerpt::escaped;

/// So many digits of a Docker network's id go into the name of the netd network, as `docker
/// network ls` shows them.
const ID_DIGITS: usize = 12;

/// The name of the netd network that is created for a Docker network.
fn network_name(network_id: &str) -> Result<String, DriverError> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match network_id.get(..ID_DIGITS).filter(|_| network_id.bytes().all(hex)) {
        Some(digits) => Ok(format!("docker-{digits}")),
        None => {
            let problem = format!("\"{}\" is not 12 or more hex digits", escaped(network_id));
            Err(DriverError::field("NetworkID", problem))
        }
    }
}

/// Swarm allocates networks that span its cluster. netd's networks belong to one host, so
/// nothing has to be chosen in advance and the options are returned unchanged.
pub(super) fn allocate(request: AllocateNetwork) -> DriverResult {
    Ok(json!({ "Options": request.options }))
}

pub(super) async fn create(netd: &NetdClient, request: CreateNetwork) -> DriverResult {
    let name = network_name(&request.network_id)?;
    let options = NetworkOptions::parse(&request.options)?;
    let data: Vec<&IpamData> =
        request.v4.iter().chain(&request.v6).filter(|data| !data.pool.is_empty()).collect();
    let mut pools = Vec::new();
    for ipam_data in &data {
        pools.push(pool(ipam_data, &options)?);
    }
    if pools.is_empty() {
        let text = "the IPAM driver gave no pool; leave --ipam-driver out, use --ipam-driver netd, \
                    or add --subnet";
        return Err(DriverError::field("IPv4Data", text));
    }
    for pool in pools.iter().filter_map(|pool| pool.subnet.parse().ok()) {
        netd.pool_backoff.accepted(&pool);
    }
    if let Some(existing) = &options.network {
        let network = netd.network(existing).await?;
        check_shared(&network, &options, &pools)?;
        check_routed(network.driver(), &data)?;
        return Ok(json!({}));
    }
    check_pool_option(&options, &pools)?;
    let driver = options.driver.unwrap_or(Driver::Bridge);
    check_routed(driver, &data)?;
    let network = Network {
        name,
        driver: driver.into(),
        pools,
        bridge: options.bridge.unwrap_or_default(),
        mtu: options.mtu.unwrap_or(0),
        masquerade: options.masquerade.unwrap_or(true) && !options.internal,
        internal: options.internal,
        published_only: options.published_only.unwrap_or(true),
        allow_host_overlap: false,
        cluster: vec![],
        docker0: vec![],
        pods: None,
        repair: options.repair.unwrap_or_default().into(),
    };
    release_reserved(netd, &data).await?;
    netd.create_network(network).await?;
    Ok(json!({}))
}

/// The gateways and auxiliary addresses that dockerd reserved before the network existed: from
/// now on the network keeps them.
async fn release_reserved(netd: &NetdClient, data: &[&IpamData]) -> Result<(), DriverError> {
    for pool in data.iter().filter(|pool| pool.address_space == ADDRESS_SPACE) {
        for text in pool.aux_addresses.values().chain([&pool.gateway]).filter(|t| !t.is_empty()) {
            netd.release(address("IPv4Data", text)?.to_string()).await?;
        }
    }
    Ok(())
}

/// Deletes the netd network that was created for the Docker network. A shared netd network has
/// another name and stays.
pub(super) async fn delete(netd: &NetdClient, request: DeleteNetwork) -> DriverResult {
    netd.delete_network(&network_name(&request.network_id)?).await?;
    Ok(json!({}))
}

fn pool(data: &IpamData, options: &NetworkOptions) -> Result<Pool, DriverError> {
    let net = subnet("--subnet", &data.pool)?;
    let mut pool = Pool { subnet: net.trunc().to_string(), ..Pool::default() };
    if !data.gateway.is_empty() {
        pool.gateway = address("--gateway", &data.gateway)?.to_string();
    }
    for text in data.aux_addresses.values() {
        pool.reserved.push(address("--aux-address", text)?.to_string());
    }
    if let Some(part) = options.pool.filter(|part| net.contains(part)) {
        // The first and the last address of the subnet are never assigned, and netd refuses
        // them as the ends of a range.
        if part.network() != net.network() {
            pool.range_start = part.network().to_string();
        }
        if part.broadcast() != net.broadcast() {
            pool.range_end = part.broadcast().to_string();
        }
    }
    Ok(pool)
}

fn check_pool_option(options: &NetworkOptions, pools: &[Pool]) -> Result<(), DriverError> {
    let Some(part) = options.pool else { return Ok(()) };
    let within = |p: &Pool| p.subnet.parse::<IpNet>().is_ok_and(|net| net.contains(&part));
    if pools.iter().any(within) {
        return Ok(());
    }
    Err(DriverError::field("-o netd.pool", format!("{part} is not within a subnet of the network")))
}

/// An interface of a routed network has a /32 or /128 address, and only the IPAM driver sets
/// the prefix length. With Docker's own IPAM driver the container would treat the whole subnet
/// as on link.
fn check_routed(driver: Driver, data: &[&IpamData]) -> Result<(), DriverError> {
    let other_ipam = data.iter().any(|pool| pool.address_space != ADDRESS_SPACE);
    if driver == Driver::Routed && other_ipam {
        let text = "\"routed\" needs netd's IPAM driver; add --ipam-driver netd";
        return Err(DriverError::field("-o netd.driver", text));
    }
    Ok(())
}

/// Refuses settings that differ from those of the netd network to be shared.
fn check_shared(
    network: &Network,
    options: &NetworkOptions,
    pools: &[Pool],
) -> Result<(), DriverError> {
    let name = &network.name;
    for pool in pools {
        let Some(own) = network.pools.iter().find(|own| own.subnet == pool.subnet) else {
            let subnets: Vec<&str> = network.pools.iter().map(|p| p.subnet.as_str()).collect();
            let text = format!(
                "{} is not a subnet of the netd network \"{name}\", which has {}; add --ipam-driver netd \
                 --ipam-opt netd.network={name}, or one of these as --subnet",
                pool.subnet,
                subnets.join(", ")
            );
            return Err(DriverError::field("--subnet", text));
        };
        if !pool.gateway.is_empty() && pool.gateway != own.gateway {
            let text = format!(
                "{} is not the gateway of the netd network \"{name}\", which is {}",
                pool.gateway, own.gateway
            );
            return Err(DriverError::field("--gateway", text));
        }
        if let Some(aux) = pool.reserved.iter().find(|aux| !own.reserved.contains(aux)) {
            let text = format!("the netd network \"{name}\" does not reserve {aux}");
            return Err(DriverError::field("--aux-address", text));
        }
    }
    let bridge = options.bridge.as_ref().is_some_and(|bridge| *bridge != network.bridge);
    let different = [
        ("--internal", options.internal != network.internal),
        ("-o netd.driver", options.driver.is_some_and(|driver| driver != network.driver())),
        ("-o netd.mtu", options.mtu.is_some_and(|mtu| mtu != network.mtu)),
        ("-o netd.masquerade", options.masquerade.is_some_and(|on| on != network.masquerade)),
        (
            "-o netd.published_only",
            options.published_only.is_some_and(|on| on != network.published_only),
        ),
        ("-o netd.bridge", bridge),
        ("-o netd.repair", options.repair.is_some_and(|repair| repair != network.repair())),
        ("-o netd.pool", options.pool.is_some()),
    ];
    match different.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => {
            let text = format!(
                "the netd network \"{name}\" has another value; leave the option out to share it \
                 (`netd network inspect {name}` prints its settings)"
            );
            Err(DriverError::field(what, text))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_named_after_its_short_id() {
        let id = "e6e92bdf40345853f5933ad7657985747e1d52245afa69a2efd9f85959b091e8";
        assert_eq!(network_name(id).unwrap(), "docker-e6e92bdf4034");
        for bad in ["", "e6e92", "../../../../etc", &id.to_uppercase(), "\u{1F4A9}aaaaaaaaaaaaaa"] {
            assert!(network_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shared_network_keeps_its_settings() {
        let pool = |subnet: &str, gateway: &str| Pool {
            subnet: subnet.into(),
            gateway: gateway.into(),
            ..Pool::default()
        };
        let network = Network {
            name: "blue".into(),
            driver: Driver::Bridge.into(),
            pools: vec![pool("10.1.0.0/16", "10.1.0.1")],
            ..Network::default()
        };
        let none = NetworkOptions::default();
        check_shared(&network, &none, &[pool("10.1.0.0/16", "10.1.0.1")]).unwrap();
        for (options, asked) in [
            (none.clone(), pool("10.2.0.0/16", "")),
            (none.clone(), pool("10.1.0.0/16", "10.1.0.9")),
            (NetworkOptions { internal: true, ..none.clone() }, pool("10.1.0.0/16", "")),
            (NetworkOptions { mtu: Some(1400), ..none }, pool("10.1.0.0/16", "")),
        ] {
            assert!(check_shared(&network, &options, &[asked]).is_err());
        }
    }
}
