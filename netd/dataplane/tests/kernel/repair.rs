//! Every kind of damage is found and repaired.

use std::sync::Arc;

use netd_dataplane::{DataplaneError, RepairKind};
use netd_domain::{Bandwidth, RepairScope, Wiring};

use crate::bed::{Bed, Space, ip, on_bridge, on_route, reaches};

/// Does the damage, expects it to be found, repairs, expects repairs of `kind`, and
/// that nothing differs any more.
async fn repairs(bed: &Bed, pod: &Space, wiring: &Arc<Wiring>, damage: &str, kind: RepairKind) {
    let damage = damage.replace("HOST", wiring.host_ifname.as_str());
    match damage.strip_prefix("pod: ") {
        Some(line) => pod.ip(line),
        None => bed.host.ip(damage.strip_prefix("host: ").unwrap()),
    };
    let mut found = bed.dataplane.check(pod.open(), wiring.clone()).await.unwrap();
    found.extend(bed.dataplane.changes_inside(pod.open(), wiring.clone()).await.unwrap());
    assert!(!found.is_empty(), "{damage}: not found");
    let repairs = bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
    assert!(repairs.iter().any(|r| r.kind == kind), "{damage}: {repairs:?}");
    bed.assert_right(pod, wiring).await;
    let again = bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
    assert!(again.is_empty(), "{damage}: {again:?}");
}

#[tokio::test]
async fn damage_to_a_bridged_pod_is_repaired() {
    let bed = Bed::new().await;
    let (wiring, other) = (Arc::new(on_bridge(5)), Arc::new(on_bridge(6)));
    let (pod, peer) = (bed.attach(&wiring).await, bed.attach(&other).await);
    for (damage, kind) in [
        ("host: link del HOST", RepairKind::Link),
        ("host: link set HOST down", RepairKind::Link),
        ("host: link set HOST nomaster", RepairKind::Link),
        ("host: link set HOST mtu 1300", RepairKind::Link),
        ("host: link set HOST address 02:00:00:00:00:01", RepairKind::Link),
        ("host: link set HOST type bridge_slave hairpin off", RepairKind::Link),
        ("host: link set HOST name other0", RepairKind::Link),
        ("host: link set HOST group 7", RepairKind::Link),
        ("pod: link set eth0 down", RepairKind::Link),
        ("pod: link set eth0 mtu 1300", RepairKind::Link),
        ("pod: link set eth0 address 02:00:00:00:00:01", RepairKind::Link),
        ("pod: link del eth0", RepairKind::Link),
        ("pod: link set lo down", RepairKind::Link),
        ("pod: addr flush dev eth0", RepairKind::Address),
        ("pod: -6 addr flush dev eth0", RepairKind::Address),
        ("pod: addr del 10.88.0.5/16 dev eth0", RepairKind::Address),
        ("pod: route del default", RepairKind::Route),
        ("pod: -6 route del default", RepairKind::Route),
    ] {
        repairs(&bed, &pod, &wiring, damage, kind).await;
        for v6 in [false, true] {
            assert!(reaches(&pod, ip(&wiring, v6), &peer, ip(&other, v6)), "{damage}");
        }
    }
}

#[tokio::test]
async fn damage_to_a_routed_pod_is_repaired() {
    let bed = Bed::new().await;
    let (wiring, other) = (Arc::new(on_route(5)), Arc::new(on_route(6)));
    let (pod, peer) = (bed.attach(&wiring).await, bed.attach(&other).await);
    for (damage, kind) in [
        ("host: link del HOST", RepairKind::Link),
        ("host: link set HOST down", RepairKind::Link),
        ("host: link set HOST address 02:00:00:00:00:01", RepairKind::Link),
        ("host: link set HOST master cni0", RepairKind::Link),
        ("host: route del 10.99.0.5", RepairKind::Route),
        ("host: -6 route del fd00:99::5", RepairKind::Route),
        ("host: neigh del 10.99.0.5 dev HOST", RepairKind::Neighbour),
        ("host: neigh flush dev HOST nud permanent", RepairKind::Neighbour),
        ("pod: link set eth0 down", RepairKind::Link),
        ("pod: addr flush dev eth0", RepairKind::Address),
        ("pod: route flush table main", RepairKind::Route),
        ("pod: route del default", RepairKind::Route),
        ("pod: neigh del 169.254.1.1 dev eth0", RepairKind::Neighbour),
        ("pod: neigh replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0", RepairKind::Neighbour),
    ] {
        repairs(&bed, &pod, &wiring, damage, kind).await;
        for v6 in [false, true] {
            assert!(reaches(&pod, ip(&wiring, v6), &peer, ip(&other, v6)), "{damage}");
        }
    }
}

#[tokio::test]
async fn a_deleted_bridge_comes_back_with_all_its_ports() {
    let bed = Bed::new().await;
    let (a, b) = (Arc::new(on_bridge(5)), Arc::new(on_bridge(6)));
    let (pod_a, pod_b) = (bed.attach(&a).await, bed.attach(&b).await);
    bed.host.ip("link del cni0");
    let repairs = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
    assert!(repairs.iter().any(|r| r.kind == RepairKind::Link), "{repairs:?}");
    for (pod, wiring) in [(&pod_a, &a), (&pod_b, &b)] {
        bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
        bed.assert_right(pod, wiring).await;
    }
    assert!(reaches(&pod_a, ip(&a, false), &pod_b, ip(&b, false)));
    // An attach finds the new bridge too, though it knew the old one's index.
    let c = Arc::new(on_bridge(7));
    let pod_c = bed.attach(&c).await;
    assert!(reaches(&pod_a, ip(&a, true), &pod_c, ip(&c, true)));
}

#[tokio::test]
async fn an_attach_just_after_the_bridge_was_replaced_finds_the_new_one() {
    let bed = Bed::new().await;
    bed.attach(&Arc::new(on_bridge(5))).await;
    bed.host.ip("link del cni0");
    bed.host.ip("link add cni0 type bridge");
    bed.host.ip("link set cni0 up mtu 1400");
    let wiring = Arc::new(on_bridge(6));
    let pod = bed.attach(&wiring).await;
    bed.assert_right(&pod, &wiring).await;
}

#[tokio::test]
async fn a_bridge_keeps_its_mtu_whatever_its_ports_have() {
    let bed = Bed::new().await;
    let mtu = || bed.host.ip("link show dev cni0").contains("mtu 1400");
    let mut small = on_bridge(5);
    small.mtu = 1300;
    let small = Arc::new(small);
    let pod = bed.attach(&small).await;
    assert!(mtu(), "with a smaller port");
    bed.dataplane.detach_link(small).await.unwrap();
    bed.dataplane.delete_detached().await.unwrap();
    assert!(mtu(), "with no port left");
    drop(pod);
}

#[tokio::test]
async fn damage_to_a_bridge_is_repaired_and_a_right_one_adopted() {
    let bed = Bed::new().await;
    for damage in [
        "link set cni0 down",
        "link set cni0 mtu 1300",
        "link set cni0 address 02:00:00:00:00:01",
        "link set cni0 type bridge stp_state 1",
        "addr flush dev cni0",
        "addr del 10.88.0.1/16 dev cni0",
    ] {
        bed.host.ip(damage);
        let repairs = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
        assert!(!repairs.is_empty(), "{damage}");
        let again = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
        assert!(again.is_empty(), "{damage}: {again:?}");
    }
    for (path, wrong) in [
        ("ipv4/ip_forward", "0"),
        ("ipv6/conf/all/forwarding", "0"),
        ("ipv4/conf/cni0/route_localnet", "0"),
        ("ipv6/conf/cni0/accept_ra", "1"),
    ] {
        bed.host.set_sysctl(path, wrong);
        let repairs = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
        assert_eq!(repairs[0].kind, RepairKind::Sysctl, "{path}");
        assert_ne!(bed.host.sysctl(path), wrong);
    }
}

/// To set a bridge's MAC, even to the one that it has, makes the kernel forget the neighbours on
/// it and drop what waits for one: a packet of a running pod was lost by that.
#[tokio::test]
async fn a_bridge_that_is_put_right_keeps_its_neighbours() {
    let bed = Bed::new().await;
    for damage in ["link set cni0 mtu 1300", "link set cni0 type bridge stp_state 1"] {
        let neighbours = add_neighbours(&bed);
        bed.host.ip(damage);
        let repairs = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
        assert!(!repairs.is_empty(), "{damage}");
        assert_eq!(neighbours_of(&bed), neighbours, "{damage}");
    }
}

/// The same by a second start, of a bridge that another program made.
#[tokio::test]
async fn a_second_start_keeps_the_neighbours_of_anothers_bridge() {
    let bed = Bed::new().await;
    bed.dataplane.remove_network(bed.bridged.clone()).await.unwrap();
    bed.host.ip("link add cni0 type bridge");
    bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
    let neighbours = add_neighbours(&bed);
    bed.mount_sysfs();
    let (second, _drift) = bed.another();
    second.ensure_network(bed.bridged.clone()).await.unwrap();
    assert_eq!(neighbours_of(&bed), neighbours);
}

fn add_neighbours(bed: &Bed) -> String {
    for ip in ["10.88.0.77", "fd00:88::77"] {
        let lladdr = "lladdr 02:00:00:00:00:77";
        bed.host.ip(&format!("neigh replace {ip} {lladdr} dev cni0 nud permanent"));
    }
    neighbours_of(bed)
}

fn neighbours_of(bed: &Bed) -> String {
    ["-4", "-6"].map(|f| bed.host.ip(&format!("{f} neigh show dev cni0 nud permanent"))).concat()
}

/// A bridge's MAC follows its ports', unless it was set: netd sets the one that it finds.
#[tokio::test]
async fn another_programs_bridge_keeps_its_mac() {
    let bed = Bed::new().await;
    bed.dataplane.remove_network(bed.bridged.clone()).await.unwrap();
    bed.host.ip("link add cni0 type bridge");
    let mac = || {
        let link = bed.host.ip("-o link show dev cni0");
        link.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap().to_owned()
    };
    let found = mac();
    bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
    let name = "cni0".parse().unwrap();
    assert_eq!(
        (mac(), bed.dataplane.bridge_mac(&name).to_string()),
        (found.clone(), found.clone())
    );
    bed.host.ip("link add port0 address 00:00:5e:00:53:01 type ifb");
    bed.host.ip("link set port0 master cni0");
    assert_eq!(mac(), found);
    bed.host.ip("link set cni0 address 02:00:00:00:00:01");
    let repairs = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
    assert_eq!((repairs.len(), mac()), (1, found));
    bed.dataplane.remove_network(bed.bridged.clone()).await.unwrap();
    assert!(!bed.host.ip("link show").contains("cni0"));
}

#[tokio::test]
async fn a_device_of_the_bridges_name_that_is_none_is_left_alone() {
    let bed = Bed::new().await;
    bed.host.ip("link del cni0");
    bed.host.ip("link add cni0 type ifb");
    let error = bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap_err();
    assert!(matches!(error, DataplaneError::InterfaceExists { place: "the host", .. }), "{error}");
    bed.dataplane.remove_network(bed.bridged.clone()).await.unwrap();
    assert!(bed.host.ip("-d link show dev cni0").contains("ifb"));
}

#[tokio::test]
async fn repair_makes_an_endpoint_of_which_nothing_is_there() {
    let bed = Bed::new().await;
    for wiring in [on_bridge(5), on_route(6)] {
        let (pod, wiring) = (Space::new(), Arc::new(wiring));
        let repairs =
            bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
        assert!(repairs.iter().any(|r| r.detail.contains("make the veth pair")), "{repairs:?}");
        bed.assert_right(&pod, &wiring).await;
    }
}

#[tokio::test]
async fn bandwidth_limits_are_made_and_repaired_and_leave_with_the_endpoint() {
    let bed = Bed::new().await;
    let mut wiring = on_bridge(5);
    wiring.bandwidth = Bandwidth {
        ingress_rate: 8_000_000,
        ingress_burst: 400_000,
        egress_rate: 16_000_000,
        egress_burst: 400_000,
    };
    let wiring = Arc::new(wiring);
    let pod = bed.attach(&wiring).await;
    bed.assert_right(&pod, &wiring).await;
    let host = wiring.host_ifname.to_string();
    let ifb = host.replacen("nd", "ni", 1);
    let show = |dev: &str| bed.host.run("tc", &format!("qdisc show dev {dev}")).unwrap();
    assert!(show(&host).contains("rate 8Mbit") && show(&host).contains("ingress"));
    assert!(show(&ifb).contains("rate 16Mbit"), "{}", show(&ifb));
    for damage in [
        format!("qdisc del dev {host} root"),
        format!("qdisc del dev {host} ingress"),
        format!("qdisc change dev {ifb} root tbf rate 1mbit burst 50000 latency 25ms"),
        format!("filter del dev {host} ingress"),
    ] {
        bed.host.run("tc", &damage).unwrap();
        let repairs =
            bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
        assert!(repairs.iter().all(|r| r.kind == RepairKind::Qdisc), "{repairs:?}");
        assert!(!repairs.is_empty(), "{damage}");
        bed.assert_right(&pod, &wiring).await;
    }
    bed.host.ip(&format!("link del {ifb}"));
    bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
    bed.assert_right(&pod, &wiring).await;
    bed.host.ip(&format!("link del {host}"));
    bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
    bed.assert_right(&pod, &wiring).await;
    bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    bed.dataplane.delete_detached().await.unwrap();
    assert!(bed.host.run("ip", &format!("link show dev {ifb}")).is_err());
}

/// How long `bytes` take from one end to the other by TCP.
fn transfer(from: &Space, at: std::net::IpAddr, to: &Space, bytes: usize) -> f64 {
    use std::{io::Read, io::Write, net::TcpListener, net::TcpStream, time::Instant};
    let listener = to.inside(|| TcpListener::bind((at, 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
        all.len()
    });
    let start = Instant::now();
    let mut stream = from.inside(|| TcpStream::connect((at, port))).unwrap();
    stream.write_all(&vec![7; bytes]).unwrap();
    drop(stream);
    assert_eq!(reader.join().unwrap(), bytes);
    start.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_limits_hold_in_each_direction() {
    let bed = Bed::new().await;
    for (n, bridged) in [(5, true), (6, false)] {
        let make = if bridged { on_bridge } else { on_route };
        let mut limited = make(n);
        limited.bandwidth = Bandwidth {
            ingress_rate: 8_000_000,
            ingress_burst: 400_000,
            egress_rate: 16_000_000,
            egress_burst: 400_000,
        };
        let (limited, free) = (Arc::new(limited), Arc::new(make(n + 10)));
        let (pod, peer) = (bed.attach(&limited).await, bed.attach(&free).await);
        // 1 MB/s and 2 MB/s after a burst of 50 kB: 0.55 s and 0.43 s at the least.
        let to = transfer(&peer, ip(&limited, false), &pod, 600_000);
        let from = transfer(&pod, ip(&free, false), &peer, 900_000);
        assert!((0.5..2.0).contains(&to), "to the pod: {to} s, bridged: {bridged}");
        assert!((0.4..2.0).contains(&from), "from the pod: {from} s, bridged: {bridged}");
    }
}
