//! Turns a CreateNetworkRequest into a Network.

use netd_api::v1;

use netd_domain::{
    Driver, Invalid, Network, NetworkName, PodAccess, Pool, RepairScope, network::NetworkOptions,
};

const MAX_POOLS: usize = 64;
const MAX_RESERVED: usize = 256;

/// Checks a network.
///
/// # Errors
/// All wrong fields, each with its path: `network.pools[1].gateway`.
pub(crate) fn network(wire: Option<v1::Network>) -> Result<Network, Invalid> {
    let wire = wire.ok_or_else(|| Invalid::field("network", "missing"))?;
    let mut bad = Invalid::new();
    let result = inner(wire);
    match result {
        Ok(network) => Ok(network),
        Err(inner) => {
            bad.nest("network", inner);
            Err(bad)
        }
    }
}

fn inner(wire: v1::Network) -> Result<Network, Invalid> {
    let mut bad = Invalid::new();
    let name = bad.take("name", wire.name.parse::<NetworkName>());
    let driver = match v1::Driver::try_from(wire.driver) {
        Ok(v1::Driver::Unspecified | v1::Driver::Bridge) => Driver::Bridge,
        Ok(v1::Driver::Routed) => Driver::Routed,
        Err(_) => {
            bad.add("driver", format!("{} is not a driver; bridge or routed", wire.driver));
            Driver::Bridge
        }
    };
    let bridge = match wire.bridge.as_str() {
        "" => None,
        text => bad.take("bridge", text.parse()),
    };
    let repair = match v1::RepairScope::try_from(wire.repair) {
        Ok(v1::RepairScope::Unspecified | v1::RepairScope::Host) => RepairScope::Host,
        Ok(v1::RepairScope::Pod) => RepairScope::Pod,
        Err(_) => {
            bad.add("repair", format!("{} is not a repair scope; host or pod", wire.repair));
            RepairScope::Host
        }
    };
    if !wire.cluster.is_empty() {
        bad.add(
            "cluster",
            "answered only: which network is the overlay's is configured ([overlay])",
        );
    }
    if !wire.docker0.is_empty() {
        bad.add("docker0", "answered only: docker0 gets a subnet by overlay.docker0");
    }
    if wire.pools.len() > MAX_POOLS {
        bad.add("pools", format!("{} pools; at most {MAX_POOLS}", wire.pools.len()));
    }
    let access =
        wire.pods.and_then(|pods| pod_access(pods).map_err(|inner| bad.nest("pods", inner)).ok());
    let mut pools = Vec::new();
    for (i, pool) in wire.pools.iter().take(MAX_POOLS).enumerate() {
        match self::pool(pool) {
            Ok(pool) => pools.push(pool),
            Err(inner) => bad.nest(&format!("pools[{i}]"), inner),
        }
    }
    bad.into_result()?;
    let name = name.ok_or_else(|| Invalid::field("name", "missing"))?;
    let options = NetworkOptions {
        driver,
        bridge,
        mtu: (wire.mtu != 0).then_some(wire.mtu),
        masquerade: wire.masquerade,
        internal: wire.internal,
        published_only: wire.published_only,
        repair,
        allow_host_overlap: wire.allow_host_overlap,
        leased: None,
        access,
    };
    Network::new(name, pools, options)
}

/// Checks which pods may use a network.
///
/// # Errors
/// `namespaces[i]`: what is wrong with each.
pub(crate) fn pod_access(wire: v1::PodAccess) -> Result<PodAccess, Invalid> {
    let mut access = PodAccess::default();
    (access.addresses, access.macs) = (wire.addresses, wire.macs);
    access.for_namespaces(wire.namespaces)
}

fn pool(wire: &v1::Pool) -> Result<Pool, Invalid> {
    let mut bad = Invalid::new();
    let subnet = bad.take("subnet", parse(&wire.subnet, "a subnet, e.g. 10.88.0.0/16"));
    let gateway = optional(&wire.gateway, "gateway", &mut bad);
    let start = optional(&wire.range_start, "range_start", &mut bad);
    let end = optional(&wire.range_end, "range_end", &mut bad);
    let mut reserved = Vec::new();
    if wire.reserved.len() > MAX_RESERVED {
        bad.add("reserved", format!("{} entries; at most {MAX_RESERVED}", wire.reserved.len()));
    }
    for (i, text) in wire.reserved.iter().take(MAX_RESERVED).enumerate() {
        let single = text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
        let either = single.or_else(|_| parse(text, "an address or a CIDR"));
        reserved.extend(bad.take(&format!("reserved[{i}]"), either));
    }
    bad.into_result()?;
    let subnet = subnet.ok_or_else(|| Invalid::field("subnet", "missing"))?;
    Pool::new(subnet, gateway, (start, end), reserved)
}

/// An address; `None` if the field is empty.
pub(crate) fn optional(text: &str, field: &str, bad: &mut Invalid) -> Option<std::net::IpAddr> {
    if text.is_empty() {
        return None;
    }
    bad.take(field, parse(text, "an IP address"))
}

/// Parses `text`; `what` says in the error what is expected.
pub(crate) fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    let shown: String = text.chars().take(64).collect();
    text.parse().map_err(|_| format!("{shown:?} is not {what}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wire(subnet: &str) -> v1::Network {
        let pool = v1::Pool { subnet: subnet.into(), ..Default::default() };
        v1::Network { name: "blue".into(), pools: vec![pool], ..Default::default() }
    }

    #[test]
    fn a_plain_network_is_taken() {
        let network = network(Some(wire("10.9.0.0/24"))).unwrap();
        assert_eq!(network.pools[0].gateway.to_string(), "10.9.0.1");
    }

    #[test]
    fn wrong_fields_are_named_with_their_path() {
        let err = network(Some(wire("10.9.0.0/33"))).unwrap_err();
        assert_eq!(err.violations[0].field, "network.pools[0].subnet");
        let mut gateway = wire("10.9.0.0/24");
        gateway.pools[0].gateway = "10.8.0.1".into();
        let err = network(Some(gateway)).unwrap_err();
        assert_eq!(err.violations[0].field, "network.pools[0].gateway");
        assert!(network(None).is_err());
        let err = network(Some(v1::Network { driver: 7, ..wire("10.9.0.0/24") })).unwrap_err();
        assert_eq!(err.violations[0].field, "network.driver");
        let err = network(Some(v1::Network { repair: 7, ..wire("10.9.0.0/24") })).unwrap_err();
        assert_eq!(err.violations[0].field, "network.repair");
    }
}
