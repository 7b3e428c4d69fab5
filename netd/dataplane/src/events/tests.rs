//! What events mean, without a kernel.
#![allow(clippy::unwrap_used)]

use super::{Expected, ExpectedBridge, Table, parse};
use crate::{
    Drift, RepairKind,
    netlink::{
        Received,
        link_group::{ENDPOINT_GROUP, FIRST_GROUP},
    },
};

const HOST: u32 = 40;
const POD: u32 = 2;
const BRIDGE: u32 = 7;
const NSID: i32 = 3;
const NEW: u32 = u32::MAX;
const UP: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut all = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
    all.extend_from_slice(&kind.to_ne_bytes());
    all.extend_from_slice(value);
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attr(kind, &value.to_ne_bytes())
}

fn event(kind: u16, nsid: Option<i32>, body: &[&[u8]]) -> Received {
    let mut bytes = vec![0; 16];
    body.iter().for_each(|part| bytes.extend_from_slice(part));
    Received { kind, port: 0, nsid, bytes }
}

/// A link: index, flags, what changed, MTU, and more attributes.
fn link(nsid: Option<i32>, index: u32, flags: u32, changed: u32, more: &[&[u8]]) -> Received {
    let mut header = vec![0; 4];
    [index, flags, changed].iter().for_each(|n| header.extend_from_slice(&n.to_ne_bytes()));
    let mac = attr(1, &MAC);
    event(parse::NEW_LINK, nsid, &[&[&header[..], &mac], more].concat())
}

fn host(flags: u32, changed: u32, mtu: u32, more: &[&[u8]]) -> Received {
    let name = attr(3, b"nd0123456789ab\0");
    let fixed = [name, number(4, mtu), number(27, ENDPOINT_GROUP)].concat();
    link(None, HOST, flags, changed, &[&[&fixed[..]], more].concat())
}

fn gone(mut event: Received) -> Received {
    event.kind = parse::DEL_LINK;
    event
}

fn route(kind: u16, nsid: Option<i32>, prefix: u8, protocol: u8, more: &[&[u8]]) -> Received {
    const MAIN: u8 = 254;
    let header = [2, prefix, 0, 0, MAIN, protocol, 0, 1, 0, 0, 0, 0];
    event(kind, nsid, &[&[&header[..]], more].concat())
}

fn neighbour(kind: u16, nsid: Option<i32>, index: u32, state: u8, ip: [u8; 4]) -> Received {
    let mut header = vec![2, 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&[state, 0, 0, 1]);
    event(kind, nsid, &[&header, &attr(1, &ip), &attr(2, &MAC)])
}

/// A table that knows one endpoint.
fn table(bridge: Option<u32>) -> Table {
    let mut table = Table::default();
    table.expect(Expected {
        name: "nd0123456789ab".parse().unwrap(),
        host: HOST,
        host_mac: MAC,
        pod: Some((NSID, POD)),
        pod_mac: MAC,
        pod_name: "eth0".parse().unwrap(),
        mtu: 1400,
        bridge,
        addresses: if bridge.is_none() { vec!["10.0.0.5".parse().unwrap()] } else { vec![] },
        awaited: false,
    });
    table
}

/// Of the pod's side.
fn inside(kind: RepairKind) -> Vec<Drift> {
    vec![Drift::Pod("nd0123456789ab".parse().unwrap(), kind)]
}

fn ours() -> Vec<Drift> {
    vec![Drift::Endpoint("nd0123456789ab".parse().unwrap())]
}

#[test]
fn going_down_or_changing_is_a_loss_and_coming_up_is_none() {
    let mut t = table(None);
    assert_eq!(t.judge(&host(UP, 0, 1400, &[]), false), [], "nothing changed");
    assert_eq!(t.judge(&host(UP, 0, 1300, &[]), false), ours(), "MTU");
    assert_eq!(t.judge(&host(UP, 0, 1400, &[]), true), [], "put right by us");
    assert_eq!(t.judge(&host(0, UP, 1400, &[]), false), ours(), "down");
    assert_eq!(t.judge(&host(UP, 0, 1400, &[&number(27, 7)]), false), ours(), "link group");
    let renamed = link(None, HOST, UP, 0, &[&attr(3, b"x0\0"), &number(4, 1400)]);
    assert_eq!(t.judge(&renamed, false), ours(), "renamed");
    assert_eq!(t.judge(&host(UP, UP, 1400, &[]), false), [], "up");
    assert_eq!(t.judge(&gone(host(0, NEW, 1400, &[])), false), ours(), "gone");
    assert_eq!(t.judge(&gone(host(0, NEW, 1400, &[])), false), [], "gone already");
}

#[test]
fn leaving_the_bridge_is_a_loss() {
    let mut t = table(Some(BRIDGE));
    assert_eq!(t.judge(&host(UP, 0, 1400, &[&number(10, BRIDGE)]), false), []);
    assert_eq!(t.judge(&host(UP, 0, 1400, &[&number(10, 9)]), false), ours());
    assert_eq!(t.judge(&host(UP, 0, 1400, &[]), false), ours());
}

#[test]
fn parked_links_are_nobodys_loss() {
    let mut t = table(None);
    let group = number(27, FIRST_GROUP);
    assert_eq!(t.judge(&host(0, UP, 1400, &[&group]), true), []);
    assert_eq!(t.judge(&gone(host(0, NEW, 1400, &[&group])), false), []);
    let address = event(parse::DEL_ADDRESS, Some(NSID), &[&[0; 4], &POD.to_ne_bytes()]);
    assert_eq!(t.judge(&address, false), [], "its sandbox's events neither");
}

#[test]
fn events_of_a_sandbox_lead_to_its_endpoint() {
    let mut t = table(None);
    let address =
        |index: u32| event(parse::DEL_ADDRESS, Some(NSID), &[&[0; 4], &index.to_ne_bytes()]);
    assert_eq!(t.judge(&address(POD), false), inside(RepairKind::Address));
    assert_eq!(t.judge(&address(POD + 1), false), [], "another interface");
    let gone = route(parse::DEL_ROUTE, Some(NSID), 0, 110, &[&number(4, POD)]);
    assert_eq!(t.judge(&gone, true), inside(RepairKind::Route), "a pod may have our port number");
    let foreign = route(parse::NEW_ROUTE, Some(NSID), 0, 3, &[&number(4, 1)]);
    assert_eq!(t.judge(&foreign, false), inside(RepairKind::Route), "in the place of ours");
    let own = route(parse::NEW_ROUTE, Some(NSID), 0, 110, &[&number(4, POD)]);
    assert_eq!(t.judge(&own, false), []);
    let elsewhere = route(parse::DEL_ROUTE, Some(NSID + 1), 0, 110, &[&number(4, POD)]);
    assert_eq!(t.judge(&elsewhere, false), []);
    let lo = link(Some(NSID), 1, 0, UP, &[]);
    assert_eq!(t.judge(&lo, false), [], "lo is the runtime's");
}

#[test]
fn the_sandbox_side_is_compared_with_what_was_made() {
    let mut t = table(None);
    let name = attr(3, b"eth0\0");
    let pod =
        |flags, changed, mtu| link(Some(NSID), POD, flags, changed, &[&name, &number(4, mtu)]);
    assert_eq!(t.judge(&pod(UP, 0, 1400), false), []);
    assert_eq!(t.judge(&pod(0, 0, 1400), false), [], "not yet up while it is being made");
    assert_eq!(t.judge(&pod(UP, 0, 1300), false), inside(RepairKind::Link));
    assert_eq!(t.judge(&pod(0, UP, 1400), false), inside(RepairKind::Link));
    assert_eq!(t.judge(&gone(pod(0, NEW, 1400)), false), inside(RepairKind::Link));
    let renamed = link(Some(NSID), POD, UP, 0, &[&attr(3, b"net0\0"), &number(4, 1400)]);
    assert_eq!(t.judge(&renamed, false), inside(RepairKind::Link), "renamed");
}

#[test]
fn an_endpoint_that_was_recreated_is_known_by_its_new_links_only() {
    let mut t = table(None);
    let again = Expected {
        name: "nd0123456789ab".parse().unwrap(),
        host: HOST + 1,
        host_mac: MAC,
        pod: Some((NSID, POD + 1)),
        pod_mac: MAC,
        pod_name: "eth0".parse().unwrap(),
        mtu: 1400,
        bridge: None,
        addresses: vec!["10.0.0.5".parse().unwrap()],
        awaited: false,
    };
    t.expect(again.clone());
    assert_eq!(t.judge(&gone(host(0, NEW, 1400, &[])), false), []);
    assert_eq!(t.judge(&host(0, UP, 1400, &[]), false), []);
    let gone_route = |by: u32| {
        let (to, by) = (attr(1, &[10, 0, 0, 5]), number(4, by));
        route(parse::DEL_ROUTE, None, 32, 110, &[&to, &by])
    };
    assert_eq!(t.judge(&gone_route(HOST), false), [], "by the old link");
    assert_eq!(t.judge(&gone_route(HOST + 1), false), ours());
    t.forget(&again.name);
    assert_eq!(t.judge(&gone_route(HOST + 1), false), []);
}

#[test]
fn host_routes_are_watched_by_what_we_made() {
    let mut t = table(None);
    let to = attr(1, &[10, 0, 0, 5]);
    let by = number(4, HOST);
    let foreign = route(parse::NEW_ROUTE, None, 32, 3, &[&to, &number(4, 9)]);
    assert_eq!(t.judge(&foreign, false), ours());
    let gone = route(parse::DEL_ROUTE, None, 32, 110, &[&to, &by]);
    assert_eq!(t.judge(&gone, false), ours());
    let other = route(parse::DEL_ROUTE, None, 32, 3, &[&attr(1, &[10, 0, 0, 6]), &by]);
    assert_eq!(t.judge(&other, false), []);
    let default = route(parse::DEL_ROUTE, None, 0, 3, &[&number(4, 9)]);
    assert_eq!(t.judge(&default, false), [Drift::Underlay]);
}

#[test]
fn permanent_neighbours_are_watched_on_routed_endpoints_only() {
    let gateway = [169, 254, 1, 1];
    let (permanent, stale) = (0x80, 0x04);
    let mut routed = table(None);
    let pod = |kind, state| neighbour(kind, Some(NSID), POD, state, gateway);
    assert_eq!(routed.judge(&pod(parse::NEW_NEIGHBOUR, permanent), false), []);
    let lost = inside(RepairKind::Neighbour);
    assert_eq!(routed.judge(&pod(parse::NEW_NEIGHBOUR, stale), false), lost);
    assert_eq!(routed.judge(&pod(parse::DEL_NEIGHBOUR, permanent), false), lost);
    let other = neighbour(parse::DEL_NEIGHBOUR, Some(NSID), POD, stale, [10, 0, 0, 1]);
    assert_eq!(routed.judge(&other, false), []);
    let mut bridged = table(Some(BRIDGE));
    assert_eq!(bridged.judge(&pod(parse::DEL_NEIGHBOUR, permanent), false), []);
}

#[test]
fn bridges_and_settings_are_watched() {
    let mut t = Table::default();
    let name = "cni0".parse().unwrap();
    t.expect_bridge(BRIDGE, ExpectedBridge { name, mac: MAC, mtu: 1400 });
    let network = vec![Drift::Network("cni0".parse().unwrap())];
    let bridge = |flags, mtu| link(None, BRIDGE, flags, 0, &[&attr(3, b"cni0\0"), &number(4, mtu)]);
    assert_eq!(t.judge(&bridge(UP, 1400), true), []);
    assert_eq!(t.judge(&bridge(UP, 1300), false), network);
    let address = event(parse::DEL_ADDRESS, None, &[&[0; 4], &BRIDGE.to_ne_bytes()]);
    assert_eq!(t.judge(&address, false), network);
    let docker0 = |label: &[u8]| event(parse::NEW_ADDRESS, None, &[&[0; 8], &attr(3, label)]);
    assert_eq!(t.judge(&docker0(b"docker0\0"), false), [Drift::Docker0]);
    assert_eq!(t.judge(&docker0(b"docker01\0"), false), []);
    let off = |index: i32| {
        let (which, forwarding) = (number(1, index as u32), number(2, 0));
        event(parse::NEW_NETCONF, None, &[&[2, 0, 0, 0], &which, &forwarding])
    };
    assert_eq!(t.judge(&off(-1), false), [Drift::Sysctl]);
    assert_eq!(t.judge(&off(7), false), network);
    assert_eq!(t.judge(&off(99), false), []);
    assert_eq!(t.judge(&gone(bridge(0, 1300)), false), network);
}

#[test]
fn a_bridge_ports_own_messages_are_no_links() {
    let mut t = table(None);
    let mut port = gone(host(UP, 0, 1400, &[]));
    const AF_BRIDGE: u8 = 7;
    port.bytes[16] = AF_BRIDGE;
    assert_eq!(t.judge(&port, false), []);
}

#[test]
fn junk_is_passed_over() {
    let mut t = table(None);
    for kind in 0..=100 {
        for length in 0..40 {
            for nsid in [None, Some(NSID)] {
                let junk = event(kind, nsid, &[&vec![0xff; length]]);
                assert_eq!(t.judge(&junk, false), [], "{kind} {length}");
            }
        }
    }
}

#[test]
fn the_carrier_of_an_awaited_endpoint_says_that_its_other_end_was_moved() {
    const LOWER_UP: u32 = 1 << 16;
    let mut t = table(None);
    let awaited = Expected {
        name: "nd0123456789ab".parse().unwrap(),
        host: HOST,
        host_mac: MAC,
        pod: None,
        pod_mac: MAC,
        pod_name: "eth0".parse().unwrap(),
        mtu: 1400,
        bridge: None,
        addresses: vec![],
        awaited: true,
    };
    t.expect(awaited);
    assert_eq!(t.judge(&host(UP, 0, 1400, &[]), false), []);
    assert_eq!(t.judge(&host(UP | LOWER_UP, 0, 1400, &[]), false), ours());
}
