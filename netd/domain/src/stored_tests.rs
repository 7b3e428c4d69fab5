#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    AttachSpec, Driver, Network, Pool,
    attach::Assigned,
    endpoint::{Bandwidth, Dns, Phase, PodIdentity, Protocol},
    ids::NetnsId,
    network::NetworkOptions,
};

fn spec(network: &Network) -> AttachSpec {
    let key = EndpointKey { sandbox: "s1".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let port =
        PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip: None };
    AttachSpec {
        key,
        netns_path: "/run/netns/x".into(),
        network: network.name.clone(),
        pod: PodIdentity::default(),
        labels: Default::default(),
        annotations: Default::default(),
        addresses: vec![],
        mac: None,
        mtu: None,
        port_mappings: vec![port],
        bandwidth: Bandwidth { ingress_rate: 8000, ingress_burst: 80_000, ..Default::default() },
        dns: Dns::default(),
        no_default_route: false,
        issued_at: 1,
        source: String::new(),
    }
}

/// As an attach records it.
fn endpoint(driver: Driver, no_default_route: bool) -> Endpoint {
    let pool =
        |subnet: &str| Pool::new(subnet.parse().unwrap(), None, (None, None), vec![]).unwrap();
    let pools = vec![pool("10.1.0.0/16"), pool("10.9.0.0/24"), pool("fd00:1::/64")];
    let options = NetworkOptions { driver, ..Default::default() };
    let network = Network::new("blue".parse().unwrap(), pools, options).unwrap();
    let spec = AttachSpec { no_default_route, ..spec(&network) };
    let assigned = [
        Assigned { ip: "10.1.0.5".parse().unwrap(), pool: &network.pools[0] },
        Assigned { ip: "fd00:1::5".parse().unwrap(), pool: &network.pools[2] },
    ];
    let wiring = spec.wire(&network, &assigned, 1500).unwrap();
    Endpoint {
        key: spec.key,
        network: spec.network,
        phase: Phase::Attached,
        netns_path: spec.netns_path,
        netns: NetnsId { dev: 4, inode: 7 },
        wiring,
        fixed_mtu: false,
        pod: spec.pod,
        labels: spec.labels,
        annotations: spec.annotations,
        dns: spec.dns,
        created_at: 1,
        issued_at: 1,
        source: spec.source,
        sequence: 1,
        path_is_foreign: false,
        moved: None,
    }
}

fn fields(result: Result<(), Invalid>) -> Vec<String> {
    result.unwrap_err().violations.into_iter().map(|v| v.field).collect()
}

/// What is wrong after `damage`.
fn damaged(driver: Driver, damage: impl FnOnce(&mut Endpoint)) -> Vec<String> {
    let mut endpoint = endpoint(driver, false);
    damage(&mut endpoint);
    fields(endpoint.check())
}

#[test]
fn what_an_attach_records_passes() {
    for driver in [Driver::Bridge, Driver::Routed] {
        for additional in [false, true] {
            endpoint(driver, additional).check().unwrap();
        }
    }
}

#[test]
fn a_record_that_names_a_device_of_somebody_else_is_refused() {
    let host = damaged(Driver::Routed, |e| e.wiring.host_ifname = "eth0".parse().unwrap());
    assert_eq!(host, ["wiring.host_ifname"]);
    let pod = damaged(Driver::Routed, |e| e.wiring.ifname = "eth1".parse().unwrap());
    assert_eq!(pod, ["wiring.ifname"]);
    let bridge = damaged(Driver::Bridge, |e| {
        e.wiring.driver = WiringDriver::Bridge("nd0123456789ab".parse().unwrap());
    });
    assert_eq!(bridge, ["wiring.driver.bridge"]);
    let network = damaged(Driver::Bridge, |e| e.network = "red".parse().unwrap());
    assert_eq!(network, ["wiring.network"]);
}

#[test]
fn numbers_out_of_range_are_refused_by_field() {
    assert_eq!(damaged(Driver::Bridge, |e| e.wiring.mtu = 1279), ["wiring.mtu"]);
    assert_eq!(damaged(Driver::Bridge, |e| e.wiring.mtu = u32::MAX), ["wiring.mtu"]);
    assert_eq!(damaged(Driver::Bridge, |e| e.sequence = u64::MAX), ["sequence"]);
    let rate = damaged(Driver::Bridge, |e| e.wiring.bandwidth.egress_rate = 1);
    assert_eq!(rate, ["wiring.bandwidth.egress_burst", "wiring.bandwidth.egress_rate"]);
    let port = damaged(Driver::Bridge, |e| e.wiring.port_mappings[0].host_port = 0);
    assert_eq!(port, ["wiring.port_mappings[0]"]);
    let relative = damaged(Driver::Bridge, |e| e.netns_path = "proc/1/ns/net".into());
    assert_eq!(relative, ["netns_path"]);
}

#[test]
fn addresses_are_one_a_family_with_a_fitting_prefix_and_gateway() {
    let set = |text: &str, driver| {
        damaged(driver, |e| e.wiring.addresses[0].address = text.parse().unwrap())
    };
    // The last one is the gateway.
    for wrong in ["10.1.0.5/32", "10.1.0.5/7", "10.1.0.0/16", "10.1.255.255/16", "10.1.0.1/16"] {
        assert_eq!(set(wrong, Driver::Bridge), ["wiring.addresses[0]"], "{wrong}");
    }
    // Multicast, and the gateway is not in its prefix either.
    assert!(set("224.0.0.5/16", Driver::Bridge).len() == 2);
    assert_eq!(set("10.1.0.5/16", Driver::Routed), ["wiring.addresses[0]"]);
    assert_eq!(set("127.0.0.1/32", Driver::Routed), ["wiring.addresses[0]"]);
    let twice = damaged(Driver::Bridge, |e| {
        let first = e.wiring.addresses[0].clone();
        e.wiring.addresses.push(first);
    });
    assert_eq!(twice, ["wiring.addresses[2]"]);
    let none = damaged(Driver::Bridge, |e| {
        e.wiring.addresses.clear();
        e.wiring.routes.clear();
    });
    assert_eq!(none, ["wiring.addresses"]);
    let gateway = damaged(Driver::Routed, |e| {
        e.wiring.addresses[1].gateway = Some("10.1.0.1".parse().unwrap());
    });
    assert_eq!(gateway, ["wiring.addresses[1]"]);
}

#[test]
fn routes_stay_in_a_family_that_the_endpoint_has() {
    let mixed = damaged(Driver::Bridge, |e| {
        e.wiring.routes[0].destination = "fd00:2::/64".parse().unwrap();
        e.wiring.routes[0].gateway = Some("10.1.0.1".parse().unwrap());
    });
    assert_eq!(mixed, ["wiring.routes[0]"]);
    let missing = damaged(Driver::Bridge, |e| {
        e.wiring.addresses.pop();
    });
    assert!(missing.iter().all(|f| f.starts_with("wiring.routes[")), "{missing:?}");
}

#[test]
fn a_tombstone_has_one_address_a_family_and_a_sequence_that_can_go_on() {
    let key = endpoint(Driver::Bridge, false).key;
    let tombstone = |addresses: &[&str], sequence| Tombstone {
        key: key.clone(),
        issued_at: 1,
        released_at: 1,
        network: None,
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        sequence,
    };
    tombstone(&["10.1.0.5", "fd00:1::5"], LAST_SEQUENCE).check().unwrap();
    assert_eq!(fields(tombstone(&[], u64::MAX).check()), ["sequence"]);
    assert_eq!(fields(tombstone(&["10.1.0.5", "10.1.0.6"], 1).check()), ["addresses[1]"]);
}
