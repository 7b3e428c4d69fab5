//! Plans, without a kernel.
#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use super::{
    limit,
    observed::{ActualEndpoint, ActualLimits, ActualLink},
    op::{Change, LinkChange, Neighbour, Op, Shape, Shaped, Side},
    plan::{Inside, plan_endpoint, plan_new},
};
use crate::{
    DataplaneError, RepairKind,
    netlink::link_group::{ENDPOINT_GROUP, FIRST_GROUP},
};
use netd_domain::{
    Bandwidth, Mac, PortMapping, Protocol, Route, Wiring, WiringDriver, wiring::WiredAddress,
};

const BRIDGE: u32 = 7;

fn wiring(bridged: bool) -> Wiring {
    let (net, via) =
        if bridged { ("10.88.0.5/16", "10.88.0.1") } else { ("10.88.0.5/32", "169.254.1.1") };
    let via: IpAddr = via.parse().unwrap();
    let mut routes = vec![Route { destination: "0.0.0.0/0".parse().unwrap(), gateway: Some(via) }];
    if !bridged {
        routes.insert(0, Route { destination: via.into(), gateway: None });
    }
    Wiring {
        network: "default".parse().unwrap(),
        driver: if bridged {
            WiringDriver::Bridge("cni0".parse().unwrap())
        } else {
            WiringDriver::Routed
        },
        host_ifname: "nd000000000005".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
        mac: "0a:58:0a:58:00:05".parse().unwrap(),
        host_mac: Mac::derived(b"host"),
        mtu: 1450,
        addresses: vec![WiredAddress { address: net.parse().unwrap(), gateway: Some(via) }],
        routes,
        port_mappings: Vec::new(),
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    }
}

/// Both ends as the wiring wants them.
fn right(w: &Wiring) -> ActualEndpoint {
    let bridged = w.driver != WiringDriver::Routed;
    let link = |index, peer, name: &str, mac| ActualLink {
        index,
        name: name.into(),
        kind: "veth".into(),
        up: true,
        mtu: w.mtu,
        mac: Some(mac),
        no_autoconf: true,
        ipv6: true,
        forwarding: true,
        peer: Some(peer),
        ..ActualLink::default()
    };
    let mut host = link(20, 2, w.host_ifname.as_str(), w.host_mac);
    (host.master, host.hairpin) = (bridged.then_some(BRIDGE), bridged);
    host.group = ENDPOINT_GROUP;
    let ip = w.addresses[0].address.addr();
    let gateway = w.addresses[0].gateway.unwrap();
    ActualEndpoint {
        host: Some(host),
        host_routes: if bridged { vec![] } else { vec![ip.into()] },
        host_neighbours: if bridged { vec![] } else { vec![(ip, w.mac)] },
        pod: Some(link(2, 20, "eth0", w.mac)),
        paired: true,
        name_taken: false,
        loopback_up: true,
        pod_addresses: vec![w.addresses[0].address],
        pod_routes: w.routes.clone(),
        pod_neighbours: if bridged { vec![] } else { vec![(gateway, w.host_mac)] },
        local_routes: false,
        limits: ActualLimits::default(),
    }
}

fn plan(w: &Wiring, actual: &ActualEndpoint) -> Vec<Op> {
    plan_endpoint(w, Some(BRIDGE), actual, Inside::Restore).unwrap()
}

/// What is done where the pod's side is the pod's.
fn plan_outside(w: &Wiring, actual: &ActualEndpoint) -> Vec<Op> {
    plan_endpoint(w, Some(BRIDGE), actual, Inside::Nothing).unwrap()
}

#[test]
fn nothing_is_done_to_what_is_right() {
    for bridged in [false, true] {
        let w = wiring(bridged);
        assert_eq!(plan(&w, &right(&w)), vec![]);
    }
}

#[test]
fn a_new_endpoint_is_made_host_first_and_its_addresses_before_its_routes() {
    for bridged in [false, true] {
        let w = wiring(bridged);
        let ops = plan_new(&w).unwrap();
        assert_eq!(ops[0], Op::CreateVeth);
        let at = |op: &Op| ops.iter().position(|o| o == op).unwrap();
        let last_host = ops.iter().rposition(|op| op.side() == Side::Host).unwrap();
        let first_pod = ops.iter().position(|op| op.side() == Side::Pod).unwrap();
        assert!(last_host < first_pod, "one batch a side: {ops:?}");
        let up = Op::SetPodLink(LinkChange { up: true, ..LinkChange::default() });
        let quiet = Op::SetPodLink(LinkChange { no_autoconf: true, ..LinkChange::default() });
        assert!(at(&quiet) < at(&up), "{ops:?}");
        let address = at(&Op::PodAddress(w.addresses[0].address));
        assert!(at(&up) < address);
        let routes: Vec<_> = w.routes.iter().map(|r| at(&Op::PodRoute(r.clone()))).collect();
        assert!(address < routes[0] && routes.is_sorted(), "{ops:?}");
        assert_eq!(ops.contains(&Op::HostRoute("10.88.0.5/32".parse().unwrap())), !bridged);
    }
}

#[test]
fn each_difference_takes_one_step() {
    let w = wiring(true);
    let host = |f: fn(&mut ActualLink)| {
        let mut actual = right(&w);
        f(actual.host.as_mut().unwrap());
        plan(&w, &actual)
    };
    let none = LinkChange::default();
    let set = |change| vec![Op::SetHostLink(change)];
    assert_eq!(host(|h| h.mtu = 1500), set(LinkChange { mtu: change(Some(1500), 1450), ..none }));
    assert_eq!(host(|h| h.mac = None), set(LinkChange { mac: change(None, w.host_mac), ..none }));
    assert_eq!(host(|h| h.up = false), set(LinkChange { up: true, ..none }));
    assert_eq!(host(|h| h.hairpin = false), set(LinkChange { hairpin: true, ..none }));
    // A new port has no hairpin yet, and the kernel takes it only from a port.
    let moved = host(|h| h.master = Some(99));
    let hairpin = Op::SetHostLink(LinkChange { hairpin: true, ..none });
    assert_eq!(
        moved,
        vec![Op::SetHostLink(LinkChange { master: change(Some(99), BRIDGE), ..none }), hairpin]
    );
    let mut actual = right(&w);
    actual.loopback_up = false;
    assert_eq!(plan(&w, &actual), vec![Op::PodLoopbackUp]);
    let mut actual = right(&w);
    actual.pod_routes.clear();
    assert_eq!(plan(&w, &actual), vec![Op::PodRoute(w.routes[0].clone())]);
}

#[test]
fn a_wrong_prefix_length_is_replaced_and_other_addresses_are_left_alone() {
    let w = wiring(true);
    let mut actual = right(&w);
    let wrong = "10.88.0.5/24".parse().unwrap();
    actual.pod_addresses = vec![wrong, "192.0.2.9/32".parse().unwrap()];
    let address = w.addresses[0].address;
    assert_eq!(plan(&w, &actual), vec![Op::RemovePodAddress(wrong), Op::PodAddress(address)]);
}

#[test]
fn a_link_that_was_down_or_gets_another_mac_gets_its_neighbours_again() {
    let w = wiring(false);
    let mut actual = right(&w);
    actual.host.as_mut().unwrap().mac = None;
    let neighbour =
        |ip: &str, to| Neighbour { ip: ip.parse().unwrap(), mac: Change { from: None, to } };
    assert!(plan(&w, &actual).contains(&Op::HostNeighbour(neighbour("10.88.0.5", w.mac))));
    let mut actual = right(&w);
    actual.pod.as_mut().unwrap().up = false;
    assert!(plan(&w, &actual).contains(&Op::PodNeighbour(neighbour("169.254.1.1", w.host_mac))));
}

/// Endpoints of earlier versions are in none.
#[test]
fn a_host_link_is_put_into_the_group_that_the_firewall_knows() {
    for bridged in [false, true] {
        let w = wiring(bridged);
        for group in [0, 9] {
            let mut actual = right(&w);
            actual.host.as_mut().unwrap().group = group;
            let change = Change { from: Some(group), to: ENDPOINT_GROUP };
            let change = LinkChange { group: Some(change), ..LinkChange::default() };
            assert_eq!(plan(&w, &actual), [Op::SetHostLink(change)]);
        }
    }
}

#[test]
fn a_pair_that_cannot_be_repaired_is_made_again() {
    let (bridged, routed) = (wiring(true), wiring(false));
    let begin = |w: &Wiring, change: fn(&mut ActualEndpoint)| {
        let mut actual = right(w);
        change(&mut actual);
        plan(w, &actual)[..2].to_vec()
    };
    let again = [Op::DeleteLink, Op::CreateVeth];
    let detached = |a: &mut ActualEndpoint| a.host.as_mut().unwrap().group = FIRST_GROUP;
    assert_eq!(begin(&bridged, detached), again, "detached");
    let lost = |a: &mut ActualEndpoint| (a.pod, a.paired) = (None, false);
    assert_eq!(begin(&bridged, lost), again);
    let renamed = |a: &mut ActualEndpoint| a.pod.as_mut().unwrap().name = "net0".into();
    assert_eq!(begin(&routed, renamed), again);
}

#[test]
fn what_others_changed_on_the_host_is_set_back_and_the_pair_stays() {
    let change = |driver: bool, change: fn(&mut ActualLink)| {
        let w = wiring(driver);
        let mut actual = right(&w);
        change(actual.host.as_mut().unwrap());
        let ops = plan_outside(&w, &actual);
        assert_eq!(ops, plan(&w, &actual));
        ops
    };
    let none = LinkChange::default();
    let group = LinkChange { group: Some(Change { from: Some(9), to: ENDPOINT_GROUP }), ..none };
    assert_eq!(change(true, |host| host.group = 9), [Op::SetHostLink(group)]);
    let master = LinkChange { master: Some(Change { from: Some(3), to: 0 }), ..none };
    assert_eq!(change(false, |host| host.master = Some(3)), [Op::SetHostLink(master)]);
    let renamed = change(false, |host| host.name = "x0".into());
    let to = wiring(false).host_ifname;
    assert_eq!(renamed[..2], [Op::LowerHostLink, Op::RenameHostLink { from: "x0".into(), to }]);
    // Routes and neighbours go with a link that is down.
    assert!(renamed.contains(&Op::SetHostLink(LinkChange { up: true, ..none })), "{renamed:?}");
    assert!(renamed.contains(&Op::HostRoute("10.88.0.5/32".parse().unwrap())), "{renamed:?}");
    assert!(renamed.iter().any(|op| matches!(op, Op::HostNeighbour(_))), "{renamed:?}");
    assert!(renamed.iter().all(|op| op.side() == Side::Host), "{renamed:?}");
}

#[test]
fn once_the_attach_is_answered_the_pods_side_is_left_as_it_is() {
    let changes: [fn(&mut ActualEndpoint); 10] = [
        |a| a.loopback_up = false,
        |a| a.pod.as_mut().unwrap().mtu = 9000,
        |a| a.pod.as_mut().unwrap().mac = Some(Mac::derived(b"tuning")),
        |a| a.pod.as_mut().unwrap().up = false,
        |a| a.pod_addresses.clear(),
        |a| a.pod_routes.clear(),
        |a| a.pod_addresses = vec!["10.88.0.5/24".parse().unwrap()],
        // Renamed, with another link in its place.
        |a| {
            a.pod.as_mut().unwrap().name = "eth0-nic".into();
            a.name_taken = true;
        },
        // In a namespace inside the pod.
        |a| (a.pod, a.paired) = (None, false),
        |a| {
            a.pod.as_mut().unwrap().up = false;
            a.pod_addresses.clear();
            a.pod_routes.clear();
        },
    ];
    for bridged in [false, true] {
        let w = wiring(bridged);
        for (n, change) in changes.iter().enumerate() {
            let mut actual = right(&w);
            change(&mut actual);
            assert_eq!(plan_outside(&w, &actual), [], "{n}");
            actual.host.as_mut().unwrap().mac = None;
            let ops = plan_outside(&w, &actual);
            assert!(matches!(ops.first(), Some(Op::SetHostLink(_))), "{n}: {ops:?}");
            assert!(ops.iter().all(|op| op.side() == Side::Host), "{n}: {ops:?}");
        }
    }
}

#[test]
fn a_pair_whose_other_end_was_never_set_up_is_completed() {
    for bridged in [false, true] {
        let w = wiring(bridged);
        let mut actual = right(&w);
        let pod = actual.pod.as_mut().unwrap();
        (pod.up, pod.no_autoconf) = (false, false);
        (actual.pod_addresses, actual.pod_routes) = (vec![], vec![]);
        actual.pod_neighbours.clear();
        let ops = plan_outside(&w, &actual);
        assert_eq!(ops, plan(&w, &actual));
        assert!(ops.iter().all(|op| op.side() == Side::Pod), "{ops:?}");
        assert!(ops.contains(&Op::PodAddress(w.addresses[0].address)), "{ops:?}");
    }
}

#[test]
fn an_mtu_that_both_ends_have_is_netds_and_follows_the_networks() {
    let mut w = wiring(true);
    let made = right(&w);
    w.mtu = 1400;
    let mtu = |from: u32, to: u32| LinkChange { mtu: change(Some(from), to), ..Default::default() };
    let both = [Op::SetHostLink(mtu(1450, 1400)), Op::SetPodLink(mtu(1450, 1400))];
    assert_eq!(plan_outside(&w, &made), both);
    let mut tuned = made.clone();
    tuned.pod.as_mut().unwrap().mtu = 1300;
    assert_eq!(plan_outside(&w, &tuned), both[..1]);
    // Both ends keep the MTU of what others have taken over.
    let mut taken = [made.clone(), made.clone(), made];
    taken[0].pod_addresses.clear();
    taken[1].pod.as_mut().unwrap().name = "eth0-nic".into();
    (taken[2].pod, taken[2].paired) = (None, false);
    for actual in taken {
        assert_eq!(plan_outside(&w, &actual), []);
    }
}

#[test]
fn a_lost_pair_is_made_again_with_its_sandboxs_side() {
    let w = wiring(true);
    let ops = plan_outside(&w, &ActualEndpoint { loopback_up: true, ..Default::default() });
    assert_eq!(ops[0], Op::CreateVeth);
    assert!(ops.contains(&Op::PodAddress(w.addresses[0].address)), "{ops:?}");
}

#[test]
fn an_interface_that_netd_did_not_make_is_never_touched() {
    let w = wiring(true);
    let mut alien = right(&w);
    (alien.host, alien.paired, alien.name_taken) = (None, false, true);
    let mut unpaired = right(&w);
    (unpaired.paired, unpaired.name_taken) = (false, true);
    for actual in [alien, unpaired] {
        let error = plan_endpoint(&w, Some(BRIDGE), &actual, Inside::Restore).unwrap_err();
        assert!(matches!(error, DataplaneError::InterfaceExists { place: "the sandbox", .. }));
    }
    let mut taken = right(&w);
    taken.host.as_mut().unwrap().kind = "ifb".into();
    let error = plan_endpoint(&w, Some(BRIDGE), &taken, Inside::Nothing).unwrap_err();
    assert!(matches!(error, DataplaneError::InterfaceExists { place: "the host", .. }));
}

#[test]
fn ipv6_brings_one_link_local_address_of_the_mac() {
    let mut w = wiring(true);
    w.addresses[0].address = "fd00::5/64".parse().unwrap();
    let ops = plan_new(&w).unwrap();
    assert!(ops.contains(&Op::PodAddress("fe80::858:aff:fe58:5/64".parse().unwrap())), "{ops:?}");
    let v4 = plan_new(&wiring(true)).unwrap();
    assert_eq!(v4.iter().filter(|op| matches!(op, Op::PodAddress(_))).count(), 1);
}

#[test]
fn limits_are_made_in_both_directions_and_compared() {
    let mut w = wiring(true);
    w.bandwidth.ingress_rate = 8_000_000;
    w.bandwidth.egress_rate = 16_000_000;
    let ops = plan_new(&w).unwrap();
    let at = |f: fn(&Op) -> bool| ops.iter().position(f).unwrap();
    let ifb = at(|op| *op == Op::CreateIfb { mtu: 1450 });
    assert!(ifb < at(|op| matches!(op, Op::Limit(Shaped::Ifb, _))));
    assert!(at(|op| *op == Op::IngressHook) < at(|op| *op == Op::Redirect));
    let mut actual = right(&w);
    actual.limits = ActualLimits {
        to_pod: limit::to_pod(&w),
        ifb: Some((30, true)),
        from_pod: limit::from_pod(&w),
        hook: true,
        redirect: Some(30),
    };
    assert_eq!(plan(&w, &actual), vec![]);
    actual.limits.redirect = Some(31);
    assert_eq!(plan(&w, &actual), vec![Op::Redirect]);
}

#[test]
fn host_ports_from_loopback_need_a_setting_on_routed_links_only() {
    let port =
        PortMapping { host_port: 80, container_port: 80, protocol: Protocol::Tcp, host_ip: None };
    for bridged in [false, true] {
        let mut w = wiring(bridged);
        w.port_mappings.push(port.clone());
        assert_eq!(plan(&w, &right(&w)).contains(&Op::LocalRoutes), !bridged);
    }
}

#[test]
fn every_step_has_a_kind_and_words() {
    for op in plan_new(&wiring(false)).unwrap() {
        let repair = op.repair(&"nd0");
        assert!(repair.detail.starts_with("nd0: ") && repair.detail.len() > 8, "{repair}");
    }
    let ip = "10.0.0.1".parse().unwrap();
    let mac = Change { from: None, to: Mac::derived(b"pod") };
    assert_eq!(Op::HostNeighbour(Neighbour { ip, mac }).kind(), RepairKind::Neighbour);
    assert_eq!(Op::PodAddress("10.0.0.1/8".parse().unwrap()).kind(), RepairKind::Address);
}

fn change<T>(from: Option<T>, to: T) -> Option<Change<T>> {
    Some(Change { from, to })
}

/// Each as CHECK says it, and as the log does.
#[test]
fn a_step_says_from_what_to_what() {
    let w = wiring(false);
    let mut actual = right(&w);
    let pod = actual.pod.as_mut().unwrap();
    (pod.mtu, pod.mac) = (1400, Some("02:00:00:00:00:01".parse().unwrap()));
    actual.host_neighbours[0].1 = "02:00:00:00:00:02".parse().unwrap();
    let ops = plan(&w, &actual);
    let texts = |text: fn(&Op) -> String| ops.iter().map(text).collect::<Vec<_>>();
    let gateway = format!("neighbour 169.254.1.1 is missing, should be {}", w.host_mac);
    let differences = [
        "neighbour 10.88.0.5 is 02:00:00:00:00:02, should be 0a:58:0a:58:00:05",
        "MTU is 1400, should be 1450; MAC is 02:00:00:00:00:01, should be 0a:58:0a:58:00:05",
        &gateway,
    ];
    assert_eq!(texts(Op::difference), differences);
    let done = [
        "host neighbour 10.88.0.5 from 02:00:00:00:00:02 to 0a:58:0a:58:00:05",
        "set the sandbox side's MTU from 1400 to 1450, \
         MAC from 02:00:00:00:00:01 to 0a:58:0a:58:00:05",
        &format!("neighbour 169.254.1.1 from none to {}", w.host_mac),
    ];
    assert_eq!(texts(Op::to_string), done);
}

#[test]
fn what_is_missing_and_what_is_limited_wrongly_is_said() {
    let mut w = wiring(true);
    (w.bandwidth.ingress_rate, w.bandwidth.ingress_burst) = (8_000_000, 800_000);
    let mut actual = right(&w);
    actual.limits.to_pod = Some(Shape { rate: 500, burst: 100_000 });
    actual.pod_addresses.clear();
    actual.host.as_mut().unwrap().up = false;
    let said: Vec<_> = plan(&w, &actual).iter().map(Op::difference).collect();
    let limit = "limit to the pod is 500 B/s with a burst of 100000 B, \
                 should be 1000000 B/s with a burst of 100000 B";
    assert_eq!(said, ["state is down, should be up", limit, "address 10.88.0.5/16 is missing"]);
}
