//! The overlay's devices and objects on the real kernel.

use std::{collections::HashSet, sync::Arc};

use netd_dataplane::{Dataplane, Drift, OverlaySubject, Settings};
use netd_domain::overlay::{
    DeviceKind, Hop, OverlayChange, OverlayDevice, OverlayObject, OverlayRoute, OverlayState,
    VxlanDevice,
};

use crate::{
    bed::reaches,
    nodes::{Node, kinds, mac, name, own, subnet},
};

#[tokio::test]
async fn nodes_reach_each_other_by_vxlan_over_both_families() {
    for v6 in [false, true] {
        let nodes = Node::pair(v6);
        for (node, peer) in nodes.iter().zip([2, 1]) {
            node.settle(&node.state(&[peer])).await;
        }
        let [a, b] = &nodes;
        let at = |number, v6| own(subnet(number, v6)).addr();
        for inner in [false, true] {
            assert!(reaches(&a.host, at(1, inner), &b.host, at(2, inner)), "{v6} {inner}");
        }
        // The largest packet that fits passes whole, one byte more does not.
        let largest = if v6 { 1430 } else { 1450 } - 28;
        let ping = |size| a.host.run("ping", &format!("-c1 -W1 -M do -s {size} 10.5.2.0"));
        ping(largest).unwrap();
        ping(largest + 1).unwrap_err();
        let counters = a.dataplane.device_counters(vec![name(), "none".parse().unwrap()]).await;
        let counters = counters.unwrap();
        assert_eq!(counters.len(), 1);
        assert!(counters[0].sent_packets > 0 && counters[0].received_bytes > 0, "{counters:?}");
    }
}

#[tokio::test]
async fn what_another_program_damages_is_heard_and_put_back() {
    let mut node = Node::one();
    let mut state = node.state(&[2, 3]);
    let (destination, hop) = ("10.5.1.0/24".parse().unwrap(), Hop::Blackhole);
    state.objects.insert(OverlayObject::Route(OverlayRoute { destination, hop, mtu: None }));
    node.settle(&state).await;
    let metric = |net: &str| {
        let destination = net.parse().unwrap();
        OverlayRoute { destination, hop: Hop::Blackhole, mtu: None }.metric()
    };
    let by_ip = |line: &str, kind: &'static str| ("ip", line.to_owned(), kind);
    let by_bridge = |line: &str, kind: &'static str| ("bridge", line.to_owned(), kind);
    let damages = [
        by_ip("link del flannel.1", "overlay_device"),
        by_ip("link set flannel.1 down", "overlay_device"),
        by_ip("link set flannel.1 mtu 1300", "overlay_device"),
        by_ip("link set flannel.1 address 02:00:00:00:00:77", "overlay_device"),
        by_ip("addr del 10.5.1.0/32 dev flannel.1", "address"),
        by_ip("addr del fd00:5:1::/128 dev flannel.1", "address"),
        by_ip("addr add 10.66.0.1/32 dev flannel.1", "address"),
        by_ip("route del 10.5.2.0/24", "route"),
        by_ip("route del blackhole 10.5.1.0/24", "route"),
        by_ip("-6 route del fd00:5:3::/64", "route"),
        by_ip(
            &format!("route replace 10.5.3.0/24 via 192.0.2.9 metric {}", metric("10.5.3.0/24")),
            "route",
        ),
        by_ip("neigh del 10.5.2.0 dev flannel.1", "neighbour"),
        by_ip("neigh replace fd00:5:2:: lladdr 02:00:00:00:00:66 dev flannel.1", "neighbour"),
        by_bridge("fdb del 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2", "fdb"),
        by_bridge("fdb replace 02:00:00:00:00:03 dev flannel.1 dst 192.0.2.99", "fdb"),
    ];
    for (program, line, kind) in damages {
        node.quiet().await;
        node.host.run(program, &line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(node.hears(&Drift::Overlay).await, "{line} was not heard");
        let report = node.sync(&state).await;
        assert!(kinds(&report).contains(kind), "{line}: {:?}", report.repairs);
        assert!(report.refused.is_empty(), "{line}: {:?}", report.refused);
        node.assert_right(&state).await;
    }
    assert_eq!(node.quiet().await, vec![], "what was put back is no drift");
}

#[tokio::test]
async fn own_changes_and_other_peoples_objects_are_no_drift() {
    let mut node = Node::one();
    let peers: Vec<u8> = (2..200).collect();
    let state = node.state(&peers);
    node.quiet().await;
    node.settle(&state).await;
    assert_eq!(node.quiet().await, vec![], "a load");
    let change = OverlayChange { add: node.peer(210), remove: node.peer(7), ..Default::default() };
    let report = node.dataplane.change_overlay(change).await.unwrap();
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    node.host.ip("link add other type veth peer name other1");
    node.host.ip("link set other up");
    node.host.ip("addr add 10.77.0.1/24 dev other");
    node.host.ip("route add 10.78.0.0/24 dev other");
    node.host.ip("route del 10.78.0.0/24");
    node.host.ip("neigh add 10.77.0.2 lladdr 02:00:00:00:00:01 dev other");
    node.host.ip("link del other");
    node.settle(&node.state(&[2])).await;
    node.settle(&OverlayState::default()).await;
    assert_eq!(node.quiet().await, vec![]);
}

#[tokio::test]
async fn leftovers_are_removed_and_other_peoples_routes_are_not() {
    let node = Node::one();
    node.settle(&node.state(&[2, 3])).await;
    // A pod's route has netd's protocol, too; the rest is other people's.
    for line in [
        "link add pod0 type veth peer name pod1",
        "link set pod0 up",
        "route add 10.99.0.5/32 dev pod0 proto 110",
        "route add 10.5.3.0/24 via 192.0.2.9 proto static metric 5",
        "route add 10.8.0.0/16 via 192.0.2.9",
        "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
    ] {
        node.host.ip(line);
    }
    let before = node.host.ip("route show");
    let settings = Settings { host_netns: Some(node.host.0.clone()), ..Settings::default() };
    let (again, _drift) = Dataplane::start(settings).unwrap();
    let report = again.sync_overlay(Arc::new(node.state(&[2]))).await.unwrap();
    assert_eq!(report.repairs.len(), 5, "one peer's: {:?}", report.repairs);
    let routes = node.host.ip("route show");
    let kept = |line: &&str| !line.contains("10.5.3.0/24 via 10.5.3.0");
    assert_eq!(routes.lines().collect::<Vec<_>>(), before.lines().filter(kept).collect::<Vec<_>>());
    assert!(!node.bridge("fdb show dev flannel.1").contains("02:00:00:00:00:03"));
    assert!(node.host.ip("neigh show dev eth0 nud permanent").contains("192.0.2.9"));
    // The whole overlay goes, but no device that netd didn't make.
    node.host.ip("link add flannel.9 type vxlan id 9 dev eth0 dstport 8472 local 192.0.2.1");
    let report = again.sync_overlay(Arc::default()).await.unwrap();
    assert!(kinds(&report).contains("overlay_device"), "{:?}", report.repairs);
    let links = node.host.ip("-o link");
    assert!(!links.contains("flannel.1:") && links.contains("flannel.9:"), "{links}");
    assert!(!node.host.ip("route show table all").contains("10.5.2.0/24"));
}

#[tokio::test]
async fn flannels_state_is_taken_over_without_an_interruption() {
    let node = Node::one();
    let mac = mac(1);
    for line in [
        format!(
            "link add flannel.1 address {mac} mtu 1450 type vxlan id 1 dev eth0 local 192.0.2.1 dstport 8472 nolearning"
        ),
        "link set flannel.1 up".into(),
        "addr add 10.5.1.0/32 dev flannel.1".into(),
        "neigh add 10.5.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent".into(),
        "route add 10.5.2.0/24 via 10.5.2.0 dev flannel.1 onlink".into(),
        // A peer that went while netd was not there yet: flannel's affair.
        "route add 10.5.9.0/24 via 10.5.9.0 dev flannel.1 onlink".into(),
        "route add 10.6.0.0/24 via 192.0.2.6".into(),
    ] {
        node.host.ip(&line);
    }
    node.bridge("fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2");
    let index =
        |node: &Node| node.host.ip("-o link show flannel.1").split(':').next().unwrap().to_owned();
    let before = index(&node);
    let mut state = node.state(&[2]);
    let gateway = "192.0.2.6".parse().unwrap();
    let hop = Hop::Via { gateway, device: "eth0".parse().unwrap(), onlink: false };
    let direct = OverlayRoute { destination: "10.6.0.0/24".parse().unwrap(), hop, mtu: None };
    state.objects.insert(OverlayObject::Route(direct));
    let report = node.sync(&state).await;
    assert!(report.refused.is_empty(), "{:?}", report.refused);
    assert!(!kinds(&report).contains("fdb"), "adopted: {:?}", report.repairs);
    assert_eq!(index(&node), before, "the device was recreated");
    node.assert_right(&state).await;
    let routes = node.host.ip("route show");
    for to in ["10.5.2.0/24", "10.6.0.0/24"] {
        let of: Vec<_> = routes.lines().filter(|line| line.starts_with(to)).collect();
        assert!(matches!(of[..], [one] if one.contains("proto 110")), "{routes}");
    }
    assert!(routes.contains("10.5.9.0/24"), "{routes}");
}

#[tokio::test]
async fn what_a_device_can_change_it_changes_and_else_it_is_recreated() {
    let node = Node::one();
    let state = node.state(&[2]);
    node.settle(&state).await;
    let index = || node.host.ip("-o link show flannel.1").split(':').next().unwrap().to_owned();
    let (first, mut changed) = (index(), state.clone());
    let mut with = |change: &dyn Fn(&mut OverlayDevice, &mut VxlanDevice)| {
        let mut device = changed.devices.remove(0);
        let DeviceKind::Vxlan(mut vxlan) = device.kind.clone() else { unreachable!() };
        change(&mut device, &mut vxlan);
        device.kind = DeviceKind::Vxlan(vxlan);
        changed.devices.push(device);
        changed.clone()
    };
    node.settle(&with(&|_, vxlan| vxlan.mac = mac(0x51).parse().unwrap())).await;
    node.settle(&with(&|device, _| device.mtu = 1400)).await;
    node.settle(&with(&|_, vxlan| vxlan.learning = true)).await;
    node.host.ip("addr add 192.0.2.101/24 dev eth0");
    node.settle(&with(&|_, vxlan| vxlan.local = "192.0.2.101".parse().unwrap())).await;
    assert_eq!(index(), first);
    node.settle(&with(&|_, vxlan| vxlan.port = 4789)).await;
    assert_ne!(index(), first);
    let shown = node.host.ip("-d link show flannel.1");
    let expected =
        ["dstport 4789", "local 192.0.2.101", "mtu 1400", &mac(0x51), "addrgenmode none"];
    for part in expected {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!shown.contains("nolearning"), "{shown}");
    node.settle(&with(&|_, vxlan| vxlan.gbp = true)).await;
    assert!(node.host.ip("-d link show flannel.1").contains("gbp"));
}

#[tokio::test]
async fn a_refusal_holds_up_nothing_else() {
    let mut node = Node::one();
    let mut state = node.state(&[2]);
    let route = |to: &str, gateway: &str, device: &str| {
        let (gateway, device) = (gateway.parse().unwrap(), device.parse().unwrap());
        let hop = Hop::Via { gateway, device, onlink: false };
        OverlayObject::Route(OverlayRoute { destination: to.parse().unwrap(), hop, mtu: None })
    };
    let bad =
        [route("10.5.7.0/24", "203.0.113.1", "eth0"), route("10.5.8.0/24", "10.1.1.1", "none")];
    // Two peers that claim one destination: always the same one gets it.
    let twice =
        [route("10.5.6.0/24", "192.0.2.6", "eth0"), route("10.5.6.0/24", "192.0.2.7", "eth0")];
    state.objects.extend(bad.iter().chain(&twice).cloned());
    let tun =
        OverlayDevice { name: "flannel0".parse().unwrap(), kind: DeviceKind::Tun, ..node.device() };
    let large = OverlayDevice { mtu: 1480, ..node.device() };
    state.devices = vec![tun.clone(), large.clone()];
    for _ in 0..2 {
        let report = node.sync(&state).await;
        let refused: HashSet<_> =
            report.refused.iter().map(|(subject, _)| subject.clone()).collect();
        let mut expected: HashSet<_> = bad.iter().cloned().map(OverlaySubject::Object).collect();
        expected.insert(OverlaySubject::Object(twice[1].clone()));
        expected.extend([tun.name.clone(), large.name.clone()].map(OverlaySubject::Device));
        assert_eq!(refused, expected, "{:?}", report.refused);
        let routes = node.host.ip("route show");
        assert!(routes.contains("10.5.2.0/24") && routes.contains("10.5.6.0/24 via 192.0.2.6"));
    }
    let said: Vec<_> = node.sync(&state).await.refused.iter().map(|(_, e)| e.to_string()).collect();
    for part in
        ["tunnel process", "10.5.7.0/24", "there is no device none", "don't fit", "another peer"]
    {
        assert!(said.iter().any(|text| text.contains(part)), "{part}: {said:?}");
    }
    // A tun device that is there is set up as wanted.
    node.quiet().await;
    node.host.ip("tuntap add dev flannel0 mode tun");
    assert!(node.hears(&Drift::Overlay).await, "the tunnel's device came");
    state.devices[0].addresses = vec!["10.5.1.0/16".parse().unwrap()];
    state.devices[0].mtu = 1472;
    let report = node.sync(&state).await;
    assert!(!report.refused.iter().any(|(s, _)| *s == OverlaySubject::Device(tun.name.clone())));
    let shown = node.host.ip("addr show flannel0");
    assert!(shown.contains("mtu 1472") && shown.contains("10.5.1.0/16"), "{shown}");
    assert!(shown.contains("qlen 1000"), "{shown}");
    assert!(shown.contains(",UP"), "{shown}");
}

#[tokio::test]
async fn single_changes_need_no_reading_and_never_undo_each_other() {
    let node = Node::one();
    node.settle(&node.state(&[2])).await;
    let change = |change: OverlayChange| async {
        let report = node.dataplane.change_overlay(change).await.unwrap();
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    };
    change(OverlayChange { add: node.peer(3), ..Default::default() }).await;
    node.assert_right(&node.state(&[2, 3])).await;
    // A peer's new MAC: what is set comes first, and what is removed is the old one only.
    let moved: Vec<_> = node
        .peer(2)
        .into_iter()
        .map(|object| match object {
            OverlayObject::Neighbour { device, ip, .. } => {
                OverlayObject::Neighbour { device, ip, mac: mac(0x22).parse().unwrap() }
            }
            OverlayObject::Fdb { device, remote, .. } => {
                OverlayObject::Fdb { device, remote, mac: mac(0x22).parse().unwrap() }
            }
            route => route,
        })
        .collect();
    let gone = node.peer(2).into_iter().filter(|object| !moved.contains(object)).collect();
    change(OverlayChange { add: moved.clone(), remove: gone, ..Default::default() }).await;
    let mut state = node.state(&[3]);
    state.objects.extend(moved.iter().cloned());
    node.assert_right(&state).await;
    // What is not there is fine, and so is what belongs to another program by now.
    let remove = [node.peer(2), node.peer(9)].concat().into_iter();
    let remove = remove.filter(|object| !moved.contains(object)).collect();
    change(OverlayChange { remove, ..Default::default() }).await;
    node.assert_right(&state).await;
    change(OverlayChange { remove: node.peer(3), ..Default::default() }).await;
    let mut state = node.state(&[]);
    state.objects.extend(moved);
    node.assert_right(&state).await;
}
