//! NetworkDriver: networks.

use ipnet::IpNet;
use netd_api::v1::{Driver, Network, Pool};
use serde_json::json;

use super::{
    Netd, ipam,
    options::{NetworkOptions, address, subnet},
    server::{Answer, Failure, shown},
    wire::{AllocateNetwork, CreateNetwork, DeleteNetwork, IpamData},
};

/// Digits of a Docker network's id that are part of the netd network's name, as `docker
/// network ls` shows them.
const DIGITS: usize = 12;

/// The name of the netd network that Docker's network has for itself.
fn own_name(network_id: &str) -> Result<String, Failure> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    match network_id.get(..DIGITS).filter(|_| network_id.bytes().all(hex)) {
        Some(digits) => Ok(format!("docker-{digits}")),
        None => {
            let problem = format!("\"{}\" is not 12 or more hex digits", shown(network_id));
            Err(Failure::field("NetworkID", problem))
        }
    }
}

/// Swarm allocates networks of the whole cluster only; netd's are a host's, and nothing
/// of them has to be chosen beforehand.
pub fn allocate(request: AllocateNetwork) -> Answer {
    Ok(json!({ "Options": request.options }))
}

pub async fn create(netd: &Netd, request: CreateNetwork) -> Answer {
    let name = own_name(&request.network_id)?;
    let options = NetworkOptions::read(&request.options)?;
    let data: Vec<&IpamData> =
        request.v4.iter().chain(&request.v6).filter(|data| !data.pool.is_empty()).collect();
    let mut pools = Vec::new();
    for one in &data {
        pools.push(pool(one, &options)?);
    }
    if pools.is_empty() {
        let text = "no pool: netd needs one, so give no --ipam-driver, or netd, or a --subnet";
        return Err(Failure::field("IPv4Data", text));
    }
    for pool in pools.iter().filter_map(|pool| pool.subnet.parse().ok()) {
        netd.offers.taken(&pool);
    }
    if let Some(existing) = &options.network {
        let network = netd.network(existing).await?;
        shares(&network, &options, &pools)?;
        check_routed(network.driver(), &data)?;
        return Ok(json!({}));
    }
    check_pool(&options, &pools)?;
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
        cluster: vec![],
        docker0: vec![],
    };
    netd.create_network(network).await?;
    Ok(json!({}))
}

/// Docker's networks go with what Docker made of them; one that it shared stays.
pub async fn delete(netd: &Netd, request: DeleteNetwork) -> Answer {
    netd.delete_network(&own_name(&request.network_id)?).await?;
    Ok(json!({}))
}

fn pool(data: &IpamData, options: &NetworkOptions) -> Result<Pool, Failure> {
    let net = subnet("--subnet", &data.pool)?;
    let mut pool = Pool { subnet: net.trunc().to_string(), ..Pool::default() };
    if !data.gateway.is_empty() {
        pool.gateway = address("--gateway", &data.gateway)?.to_string();
    }
    for text in data.aux_addresses.values() {
        pool.reserved.push(address("--aux-address", text)?.to_string());
    }
    if let Some(part) = options.pool.filter(|part| net.contains(part)) {
        // The subnet's own edges are nobody's address.
        if part.network() != net.network() {
            pool.range_start = part.network().to_string();
        }
        if part.broadcast() != net.broadcast() {
            pool.range_end = part.broadcast().to_string();
        }
    }
    Ok(pool)
}

fn check_pool(options: &NetworkOptions, pools: &[Pool]) -> Result<(), Failure> {
    let Some(part) = options.pool else { return Ok(()) };
    let within = |p: &Pool| p.subnet.parse::<IpNet>().is_ok_and(|net| net.contains(&part));
    if pools.iter().any(within) {
        return Ok(());
    }
    Err(Failure::field("-o netd.pool", format!("{part} is in none of the network's subnets")))
}

/// A routed interface has its address alone, and only the IPAM driver can say so: with
/// Docker's, it would believe that the subnet is on its link.
fn check_routed(driver: Driver, data: &[&IpamData]) -> Result<(), Failure> {
    let foreign = data.iter().any(|one| one.address_space != ipam::SPACE);
    if driver == Driver::Routed && foreign {
        let text = "a routed network needs --ipam-driver netd";
        return Err(Failure::field("-o netd.driver", text));
    }
    Ok(())
}

/// Whether Docker's idea of a network goes with the netd network that it is to share.
fn shares(network: &Network, options: &NetworkOptions, pools: &[Pool]) -> Result<(), Failure> {
    let name = &network.name;
    for pool in pools {
        let Some(own) = network.pools.iter().find(|own| own.subnet == pool.subnet) else {
            let subnets: Vec<&str> = network.pools.iter().map(|p| p.subnet.as_str()).collect();
            let text = format!(
                "{} is no pool of the netd network \"{name}\", which has {}; use --ipam-driver netd \
                 --ipam-opt netd.network={name}, or that --subnet",
                pool.subnet,
                subnets.join(", ")
            );
            return Err(Failure::field("--subnet", text));
        };
        if !pool.gateway.is_empty() && pool.gateway != own.gateway {
            let text = format!("{} is not {}, that of \"{name}\"", pool.gateway, own.gateway);
            return Err(Failure::field("--gateway", text));
        }
        if let Some(aux) = pool.reserved.iter().find(|aux| !own.reserved.contains(aux)) {
            let text = format!("{aux} is not among those that \"{name}\" reserves");
            return Err(Failure::field("--aux-address", text));
        }
    }
    let bridge = options.bridge.as_ref().is_some_and(|bridge| *bridge != network.bridge);
    let different = [
        ("--internal", options.internal != network.internal),
        ("-o netd.driver", options.driver.is_some_and(|driver| driver != network.driver())),
        ("-o netd.mtu", options.mtu.is_some_and(|mtu| mtu != network.mtu)),
        ("-o netd.masquerade", options.masquerade.is_some_and(|on| on != network.masquerade)),
        ("-o netd.bridge", bridge),
        ("-o netd.pool", options.pool.is_some()),
    ];
    match different.iter().find(|(_, differs)| *differs) {
        Some((what, _)) => {
            let text = format!("the netd network \"{name}\" exists with another setting");
            Err(Failure::field(what, text))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_short_ids_name() {
        let id = "e6e92bdf40345853f5933ad7657985747e1d52245afa69a2efd9f85959b091e8";
        assert_eq!(own_name(id).unwrap(), "docker-e6e92bdf4034");
        for bad in ["", "e6e92", "../../../../etc", &id.to_uppercase(), "\u{1F4A9}aaaaaaaaaaaaaa"] {
            assert!(own_name(bad).is_err(), "{bad}");
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
        shares(&network, &none, &[pool("10.1.0.0/16", "10.1.0.1")]).unwrap();
        for (options, asked) in [
            (none.clone(), pool("10.2.0.0/16", "")),
            (none.clone(), pool("10.1.0.0/16", "10.1.0.9")),
            (NetworkOptions { internal: true, ..none.clone() }, pool("10.1.0.0/16", "")),
            (NetworkOptions { mtu: Some(1400), ..none }, pool("10.1.0.0/16", "")),
        ] {
            assert!(shares(&network, &options, &[asked]).is_err());
        }
    }
}
