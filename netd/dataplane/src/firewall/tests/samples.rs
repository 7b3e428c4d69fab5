//! Networks and endpoints to test with.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use crate::firewall::FirewallState;
use netd_domain::{
    BridgeWiring, Mac, NetworkWiring, PortMapping, Protocol, Wiring, WiringDriver,
    wiring::WiredAddress,
};

pub(crate) fn network(name: &str, bridge: Option<&str>, subnets: &[&str]) -> NetworkWiring {
    NetworkWiring {
        name: name.parse().unwrap(),
        bridge: bridge.map(|b| BridgeWiring {
            name: b.parse().unwrap(),
            mac: Mac::derived(b.as_bytes()),
            addresses: vec![],
        }),
        mtu: 1500,
        subnets: subnets.iter().map(|s| s.parse().unwrap()).collect(),
        cluster: vec![],
        docker0: vec![],
        masquerade: true,
        internal: false,
        published_only: false,
    }
}

/// Its name on the host is `nd` and twelve digits.
pub(crate) fn endpoint(number: u64, driver: WiringDriver, addresses: &[&str]) -> Wiring {
    Wiring {
        network: "blue".parse().unwrap(),
        driver,
        host_ifname: format!("nd{number:012x}").parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        mac: Mac::of_ip(addresses[0].split('/').next().unwrap().parse().unwrap()),
        host_mac: Mac::derived(&number.to_be_bytes()),
        mtu: 1500,
        addresses: addresses
            .iter()
            .map(|a| WiredAddress { address: a.parse().unwrap(), gateway: None })
            .collect(),
        routes: vec![],
        port_mappings: vec![],
        bandwidth: Default::default(),
        pod_mac: None,
    }
}

pub(crate) fn bridged(number: u64, bridge: &str, addresses: &[&str]) -> Wiring {
    endpoint(number, WiringDriver::Bridge(bridge.parse().unwrap()), addresses)
}

pub(crate) fn port(
    protocol: Protocol,
    host: (Option<&str>, u16),
    container_port: u16,
) -> PortMapping {
    let host_ip = host.0.map(|ip| ip.parse::<IpAddr>().unwrap());
    PortMapping { host_port: host.1, container_port, protocol, host_ip }
}

/// A bit of everything.
pub(crate) fn mixed() -> FirewallState {
    let mut closed = network("closed", Some("nbrclosed"), &["10.90.0.0/24"]);
    closed.internal = true;
    let mut plain = network("plain", None, &["10.91.0.0/24", "fd00:91::/64"]);
    plain.masquerade = false;
    let blue = network("blue", Some("cni0"), &["10.88.0.0/16", "10.89.0.0/16", "fd00:88::/64"]);
    let mut first = bridged(1, "cni0", &["10.88.0.5/16", "fd00:88::5/64"]);
    first.port_mappings = vec![
        port(Protocol::Tcp, (None, 8080), 80),
        port(Protocol::Udp, (Some("127.0.0.1"), 53), 5353),
        port(Protocol::Sctp, (Some("2001:db8::1"), 99), 9),
    ];
    let second = endpoint(2, WiringDriver::Routed, &["10.91.0.7/32", "fd00:91::7/128"]);
    FirewallState {
        networks: vec![Arc::new(blue), Arc::new(closed), Arc::new(plain)],
        endpoints: vec![Arc::new(first), Arc::new(second)],
    }
}

/// The node's addresses that go with [`mixed`].
pub(crate) fn node() -> BTreeSet<IpAddr> {
    ["127.0.0.1", "192.0.2.1", "2001:db8::1"].iter().map(|ip| ip.parse().unwrap()).collect()
}

/// `count` bridged endpoints with both families and no ports.
pub(crate) fn crowd(count: u16) -> FirewallState {
    let endpoints = (0..count).map(|i| {
        let (a, b) = (i / 250, i % 250 + 2);
        let addresses = [format!("10.88.{a}.{b}/16"), format!("fd00:88::{:x}/64", i + 2)];
        Arc::new(bridged(u64::from(i), "cni0", &[&addresses[0], &addresses[1]]))
    });
    FirewallState {
        networks: vec![Arc::new(network("blue", Some("cni0"), &["10.88.0.0/16", "fd00:88::/64"]))],
        endpoints: endpoints.collect(),
    }
}
