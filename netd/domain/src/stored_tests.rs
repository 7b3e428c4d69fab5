#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    AttachSpec, DefaultRoute, Driver, Network, PodSide, Pool, Stage,
    attach::Assigned,
    bandwidth::Bandwidth,
    endpoint::{Dns, Phase, PodIdentity},
    ids::NetnsId,
    network::NetworkOptions,
    port_mapping::{PortMapping, Protocol},
};
use std::sync::Arc;

fn spec(network: &Network) -> AttachSpec {
    let key = EndpointKey { sandbox: "s1".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let port =
        PortMapping { host_port: 80, container_port: 8080, protocol: Protocol::Tcp, host_ip: None };
    AttachSpec {
        key,
        netns_path: Some("/run/netns/x".into()),
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
        default_route: DefaultRoute::First,
        issued_at: 1,
        source: String::new(),
    }
}

/// As an attach records it.
fn endpoint(driver: Driver, additional: bool) -> Endpoint {
    let pool =
        |subnet: &str| Pool::new(subnet.parse().unwrap(), None, (None, None), vec![]).unwrap();
    let pools = vec![pool("10.1.0.0/16"), pool("10.9.0.0/24"), pool("fd00:1::/64")];
    let options = NetworkOptions { driver, ..Default::default() };
    let network = Network::new("blue".parse().unwrap(), pools, options).unwrap();
    let spec = spec(&network);
    let assigned = [
        Assigned { ip: "10.1.0.5".parse().unwrap(), pool: &network.pools[0] },
        Assigned { ip: "fd00:1::5".parse().unwrap(), pool: &network.pools[2] },
    ];
    let wiring = spec.build_wiring(&network, &assigned, 1500, !additional).unwrap();
    Endpoint {
        key: spec.key,
        network: spec.network,
        phase: Phase::Attached,
        netns_path: spec.netns_path,
        netns: Some(NetnsId { dev: 4, inode: 7, cookie: None }),
        wiring: Arc::new(wiring),
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
        request: None,
        labels_of_api: false,
        named_ports: Vec::new(),
        runtime_placed: None,
    }
}

fn wiring(endpoint: &mut Endpoint) -> &mut Wiring {
    Arc::make_mut(&mut endpoint.wiring)
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
fn a_record_that_names_a_device_of_another_owner_is_refused() {
    let host = damaged(Driver::Routed, |e| wiring(e).host_ifname = "eth0".parse().unwrap());
    assert_eq!(host, ["wiring.host_ifname"]);
    let pod = damaged(Driver::Routed, |e| wiring(e).ifname = "eth1".parse().unwrap());
    assert_eq!(pod, ["wiring.ifname"]);
    let bridge = damaged(Driver::Bridge, |e| {
        wiring(e).driver = WiringDriver::Bridge("nd0123456789ab".parse().unwrap());
    });
    assert_eq!(bridge, ["wiring.driver.bridge"]);
    let network = damaged(Driver::Bridge, |e| e.network = "red".parse().unwrap());
    assert_eq!(network, ["wiring.network"]);
}

#[test]
fn numbers_out_of_range_are_refused_by_field() {
    assert_eq!(damaged(Driver::Bridge, |e| wiring(e).mtu = 1279), ["wiring.mtu"]);
    assert_eq!(damaged(Driver::Bridge, |e| wiring(e).mtu = u32::MAX), ["wiring.mtu"]);
    assert_eq!(damaged(Driver::Bridge, |e| e.sequence = u64::MAX), ["sequence"]);
    let rate = damaged(Driver::Bridge, |e| wiring(e).bandwidth.egress_rate = 1);
    assert_eq!(rate, ["wiring.bandwidth.egress_burst", "wiring.bandwidth.egress_rate"]);
    let port = damaged(Driver::Bridge, |e| wiring(e).port_mappings[0].host_port = 0);
    assert_eq!(port, ["wiring.port_mappings[0].host_port"]);
    let relative = damaged(Driver::Bridge, |e| e.netns_path = Some("proc/1/ns/net".into()));
    assert_eq!(relative, ["netns_path"]);
}

#[test]
fn addresses_are_one_a_family_with_a_fitting_prefix_and_gateway() {
    let set = |text: &str, driver| {
        damaged(driver, |e| wiring(e).addresses[0].address = text.parse().unwrap())
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
        wiring(e).addresses.push(first);
    });
    assert_eq!(twice, ["wiring.addresses[2]"]);
    let none = damaged(Driver::Bridge, |e| {
        wiring(e).addresses.clear();
        wiring(e).routes.clear();
    });
    assert_eq!(none, ["wiring.addresses"]);
    let gateway = damaged(Driver::Routed, |e| {
        wiring(e).addresses[1].gateway = Some("10.1.0.1".parse().unwrap());
    });
    assert_eq!(gateway, ["wiring.addresses[1]"]);
}

#[test]
fn routes_stay_in_a_family_that_the_endpoint_has() {
    let mixed = damaged(Driver::Bridge, |e| {
        wiring(e).routes[0].destination = "fd00:2::/64".parse().unwrap();
        wiring(e).routes[0].gateway = Some("10.1.0.1".parse().unwrap());
    });
    assert_eq!(mixed, ["wiring.routes[0]"]);
    let missing = damaged(Driver::Bridge, |e| {
        wiring(e).addresses.pop();
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
    tombstone(&["10.1.0.5", "fd00:1::5"], MAX_SEQUENCE).check().unwrap();
    assert_eq!(fields(tombstone(&[], u64::MAX).check()), ["sequence"]);
    assert_eq!(fields(tombstone(&["10.1.0.5", "10.1.0.6"], 1).check()), ["addresses[1]"]);
}

/// The seeds were written by the release before; one that goes back to it has to read what
/// this one writes.
#[test]
fn records_of_the_release_before_are_read_and_written_byte_for_byte() {
    let seeds = [
        include_str!("../../../fuzz/seeds/stored_records/bridge.json"),
        include_str!("../../../fuzz/seeds/stored_records/routed.json"),
        include_str!("../../../fuzz/seeds/stored_records/cnm.json"),
    ];
    let lines = seeds.iter().flat_map(|seed| seed.lines());
    let records: Vec<&str> = lines.filter(|line| line.contains("\"phase\"")).collect();
    assert_eq!(records.len(), 6);
    for record in records {
        let endpoint: Endpoint = serde_json::from_str(record).unwrap();
        endpoint.check().unwrap();
        assert_eq!(serde_json::to_string(&endpoint).unwrap(), record);
    }
}

#[test]
fn a_record_says_where_the_runtime_has_the_pods_side() {
    let seed = include_str!("../../../fuzz/seeds/stored_records/cnm.json");
    let all: Vec<Endpoint> =
        seed.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let [created, pending, placed] = all.as_slice() else { panic!("{} records", all.len()) };
    assert_eq!((created.stage(), created.pod_side()), (Some(Stage::Created), PodSide::Pending));
    assert_eq!((&created.netns_path, created.netns), (&None, None));
    assert_eq!((pending.stage(), pending.pod_side()), (Some(Stage::Pending), PodSide::Pending));
    assert!(pending.netns_path.is_some() && pending.netns.is_none() && pending.is_joined());
    assert_eq!((placed.stage(), placed.pod_side()), (Some(Stage::Placed), PodSide::Placed));
    assert!(placed.netns_path.is_some() && placed.netns.is_some());
    let nowhere = damaged(Driver::Bridge, |e| e.netns_path = None);
    assert_eq!(nowhere, ["netns_path"], "only a runtime's endpoint may be in no sandbox");
}
