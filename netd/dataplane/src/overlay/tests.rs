//! What leads from objects that are there to those that have to be, without a kernel.
#![allow(clippy::unwrap_used)]

use std::{collections::HashMap, net::IpAddr};

use super::objects::{
    Objects, Plan, device_of, diff, is_overlay_metric, metric_of, object_of, resolve,
    stands_before_ours,
};
use crate::netlink::entry::{HeldRoute, KernelHop, OverlayEntry};
use netd_domain::{
    IfName,
    overlay::{Hop, METRIC_BASE, OverlayObject, OverlayRoute},
};

const DEVICE: u32 = 9;
const UNDERLAY: u32 = 2;

fn route(to: &str, hop: KernelHop) -> HeldRoute {
    let destination = to.parse().unwrap();
    HeldRoute::ours(destination, metric_of(destination), hop, None)
}

fn neighbour(last: u8, mac: u8) -> OverlayEntry {
    let ip = IpAddr::from([10, 5, last, 0]);
    OverlayEntry::Neighbour { link: DEVICE, ip, mac: [2, 0, 0, 0, 0, mac] }
}

fn fdb(mac: u8, last: u8) -> OverlayEntry {
    let remote = IpAddr::from([192, 0, 2, last]);
    OverlayEntry::Fdb { link: DEVICE, mac: [2, 0, 0, 0, 0, mac], remote }
}

fn peer(n: u8) -> Vec<OverlayEntry> {
    let hop = KernelHop::Link(DEVICE);
    vec![neighbour(n, n), fdb(n, n), OverlayEntry::Route(route(&format!("10.5.{n}.0/24"), hop))]
}

fn objects(entries: &[Vec<OverlayEntry>]) -> Objects {
    let mut all = Objects::default();
    for entry in entries.iter().flatten() {
        all.put(entry);
    }
    all
}

#[test]
fn what_is_missing_is_set_before_what_is_too_much_is_removed() {
    let (wanted, held) = (objects(&[peer(2), peer(3)]), objects(&[peer(3), peer(4)]));
    assert_eq!(diff(&wanted, &wanted, &[], &[]), Plan::default());
    let plan = diff(&wanted, &held, &[], &[]);
    assert_eq!(plan.set, peer(2));
    let mut backwards = peer(4);
    backwards.reverse();
    assert_eq!(plan.remove, backwards);
}

#[test]
fn what_has_the_same_key_is_replaced_and_not_removed() {
    let wanted = objects(&[vec![neighbour(2, 2), fdb(2, 2)]]);
    let held = objects(&[vec![neighbour(2, 7), fdb(2, 7)]]);
    let plan = diff(&wanted, &held, &[], &[]);
    assert_eq!(plan.set, [neighbour(2, 2), fdb(2, 2)]);
    assert_eq!(plan.remove, []);
    assert!(wanted.holds_another(&neighbour(2, 7)) && !wanted.holds_another(&neighbour(2, 2)));
}

#[test]
fn a_route_with_another_metric_than_its_own_is_a_leftover() {
    let right = route("10.5.2.0/24", KernelHop::Link(DEVICE));
    let wrong = HeldRoute { metric: METRIC_BASE, ..right };
    let wanted = objects(&[vec![OverlayEntry::Route(right)]]);
    let held = objects(&[vec![OverlayEntry::Route(wrong)]]);
    let plan = diff(&wanted, &held, &[], &[]);
    assert_eq!(
        (plan.set, plan.remove),
        (vec![OverlayEntry::Route(right)], vec![OverlayEntry::Route(wrong)])
    );
    assert!(is_overlay_metric(right.metric) && !is_overlay_metric(0) && !is_overlay_metric(1024));
}

#[test]
fn of_others_routes_flannels_that_would_win_are_taken_over() {
    let gateway = "192.0.2.6".parse().unwrap();
    let direct = KernelHop::Via { gateway, link: UNDERLAY, onlink: false };
    let wanted = objects(&[vec![
        OverlayEntry::Route(route("10.5.2.0/24", KernelHop::Link(DEVICE))),
        OverlayEntry::Route(route("10.6.0.0/24", direct)),
        OverlayEntry::Route(route("fd00:5:2::/64", KernelHop::Link(DEVICE))),
    ]]);
    let theirs = |to: &str, hop, metric, protocol| {
        let route = HeldRoute { metric, protocol, ..route(to, hop) };
        stands_before_ours(&route, &wanted, &[DEVICE])
    };
    let via = |last: u8, link| {
        let gateway = IpAddr::from([192, 0, 2, last]);
        KernelHop::Via { gateway, link, onlink: true }
    };
    assert!(theirs("10.5.2.0/24", via(2, DEVICE), 0, 3));
    assert!(theirs("fd00:5:2::/64", KernelHop::Link(DEVICE), 1024, 3));
    assert!(theirs("10.6.0.0/24", via(6, UNDERLAY), 0, 3));
    assert!(!theirs("10.6.0.0/24", via(7, UNDERLAY), 0, 3), "leads elsewhere");
    assert!(!theirs("10.5.2.0/24", via(2, UNDERLAY), 0, 3), "leads elsewhere");
    assert!(!theirs("10.5.2.0/24", via(2, DEVICE), 0, 4), "static");
    assert!(!theirs("10.5.2.0/24", via(2, DEVICE), 50, 3), "made with a metric");
    assert!(!theirs("10.5.9.0/24", via(9, DEVICE), 0, 3), "not wanted");
}

#[test]
fn objects_become_entries_and_back() {
    let name: IfName = "flannel.1".parse().unwrap();
    let links = [(name.clone(), DEVICE)].into();
    let names = [(DEVICE, name.clone())].into();
    let gateway = "10.5.2.0".parse().unwrap();
    let mac = "02:00:00:00:00:02".parse().unwrap();
    let route = |hop| {
        let destination = "10.5.2.0/24".parse().unwrap();
        OverlayObject::Route(OverlayRoute { destination, hop, mtu: Some(1400) })
    };
    let all = [
        OverlayObject::Neighbour { device: name.clone(), ip: gateway, mac },
        OverlayObject::Fdb { device: name.clone(), mac, remote: gateway },
        route(Hop::Blackhole),
        route(Hop::Device(name.clone())),
        route(Hop::Via { gateway, device: name.clone(), onlink: true }),
    ];
    for object in all {
        let entry = resolve(&object, &links).unwrap();
        assert_eq!(object_of(&entry, &names), Some(object.clone()));
        let missing = resolve(&object, &HashMap::new());
        let expected = device_of(&object).map_or(Ok(entry), Err);
        assert_eq!(missing, expected);
    }
}
