//! Changes by others are reported as drift within a second.

use std::sync::Arc;

use netd_dataplane::Drift;
use netd_domain::RepairScope;

use crate::bed::{Bed, on_bridge, on_route};

/// Does each damage, and expects the event that `wanted` names.
async fn hears(bed: &mut Bed, damages: &[(&str, Drift)]) {
    for (damage, wanted) in damages {
        bed.quiet().await;
        bed.host.ip(damage);
        assert!(bed.hears(|drift| drift == wanted).await, "{damage}: {wanted:?} was not heard");
    }
}

#[tokio::test]
async fn damage_on_the_host_is_heard() {
    let mut bed = Bed::new().await;
    let (bridged, routed) = (Arc::new(on_bridge(5)), Arc::new(on_route(6)));
    let pods = [bed.attach(&bridged).await, bed.attach(&routed).await];
    let (b, r) = (bridged.host_ifname.to_string(), routed.host_ifname.to_string());
    let endpoint = |wiring: &netd_domain::Wiring| Drift::Endpoint(wiring.host_ifname.clone());
    let (of_b, of_r) = (endpoint(&bridged), endpoint(&routed));
    let network = Drift::Network("cni0".parse().unwrap());
    let damages = [
        (format!("link set {b} down"), of_b.clone()),
        (format!("link set {b} nomaster"), of_b.clone()),
        (format!("link set {b} mtu 1300"), of_b.clone()),
        (format!("link set {b} address 02:00:00:00:00:01"), of_b.clone()),
        ("route del 10.99.0.6".into(), of_r.clone()),
        ("-6 route del fd00:99::6".into(), of_r.clone()),
        (format!("neigh del 10.99.0.6 dev {r}"), of_r.clone()),
        (format!("neigh replace fd00:99::6 lladdr 02:00:00:00:00:01 dev {r}"), of_r.clone()),
        ("addr del 10.88.0.1/16 dev cni0".into(), network.clone()),
        ("link set cni0 mtu 1300".into(), network.clone()),
        ("link set cni0 down".into(), network.clone()),
        (format!("link del {r}"), of_r),
        ("link del cni0".into(), network),
    ];
    let damages: Vec<_> =
        damages.iter().map(|(line, drift)| (line.as_str(), drift.clone())).collect();
    hears(&mut bed, &damages).await;
    bed.host.ip(&format!("link del {b}"));
    assert!(bed.hears(|drift| *drift == of_b).await);
    drop(pods);
}

#[tokio::test]
async fn damage_in_a_sandbox_is_heard_and_told_from_other_sandboxes() {
    let mut bed = Bed::new().await;
    for wiring in [on_bridge(5), on_route(6)] {
        let wiring = Arc::new(wiring);
        let pod = bed.attach(&wiring).await;
        let routed = wiring.network.as_str() == "routed";
        let all = [
            ("link set eth0 mtu 1300", false),
            ("addr flush dev eth0", false),
            ("route del default", false),
            ("-6 route del default", false),
            ("route replace default dev lo", false),
            ("neigh del 169.254.1.1 dev eth0", true),
            ("neigh replace 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0", true),
            ("link set eth0 down", false),
            ("link set eth0 address 02:00:00:00:00:01", false),
            ("link del eth0", false),
        ];
        for (damage, _) in all.iter().filter(|(_, only)| routed || !only) {
            bed.quiet().await;
            pod.ip(damage);
            let name = wiring.host_ifname.clone();
            let inside = |drift: &Drift| matches!(drift, Drift::Pod(of, _) if *of == name);
            assert!(bed.hears(inside).await, "{damage} was not heard");
            bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
            bed.assert_right(&pod, &wiring).await;
        }
    }
}

#[tokio::test]
async fn what_an_earlier_process_made_is_watched_once_it_is_adopted() {
    let mut bed = Bed::new().await;
    let (bridged, routed) = (Arc::new(on_bridge(5)), Arc::new(on_route(6)));
    let pods = [bed.attach(&bridged).await, bed.attach(&routed).await];
    let (dataplane, drift) = bed.another();
    (bed.dataplane, bed.drift) = (dataplane, drift);
    for network in [&bed.bridged, &bed.routed] {
        let repairs = bed.dataplane.ensure_network(network.clone()).await.unwrap();
        assert!(repairs.is_empty(), "{repairs:?}");
    }
    for (pod, wiring) in pods.iter().zip([&bridged, &routed]) {
        let repairs =
            bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await.unwrap();
        assert!(repairs.is_empty(), "{repairs:?}");
    }
    for (pod, wiring, damage) in [
        (&pods[0], &bridged, "link set eth0 mtu 1300"),
        (&pods[1], &routed, "neigh del 169.254.1.1 dev eth0"),
    ] {
        bed.quiet().await;
        pod.ip(damage);
        let name = wiring.host_ifname.clone();
        let inside = |drift: &Drift| matches!(drift, Drift::Pod(of, _) if *of == name);
        assert!(bed.hears(inside).await, "{damage}");
    }
}

/// containerd takes it down before it asks netd to detach.
#[tokio::test]
async fn lo_is_the_runtimes() {
    let mut bed = Bed::new().await;
    let pod = bed.attach(&Arc::new(on_bridge(5))).await;
    bed.quiet().await;
    pod.ip("link set lo down");
    assert_eq!(bed.quiet().await, vec![]);
}

#[tokio::test]
async fn attaching_and_detaching_is_no_drift() {
    let mut bed = Bed::new().await;
    bed.quiet().await;
    let wirings: Vec<_> =
        (2..12).flat_map(|n| [Arc::new(on_bridge(n)), Arc::new(on_route(n))]).collect();
    let mut pods = Vec::new();
    for wiring in &wirings {
        pods.push(bed.attach(wiring).await);
    }
    let heard = bed.quiet().await;
    assert_eq!(heard, vec![], "after attaching");
    for wiring in &wirings {
        bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    }
    bed.dataplane.delete_detached().await.unwrap();
    drop(pods);
    assert_eq!(bed.quiet().await, vec![], "after detaching");
}

#[tokio::test]
async fn settings_rules_and_the_underlay_are_watched() {
    let mut bed = Bed::new().await;
    bed.quiet().await;
    bed.host.set_sysctl("ipv4/ip_forward", "0");
    assert!(bed.hears(|drift| *drift == Drift::Sysctl).await, "IPv4 forwarding");
    bed.quiet().await;
    bed.host.set_sysctl("ipv6/conf/all/forwarding", "0");
    assert!(bed.hears(|drift| *drift == Drift::Sysctl).await, "IPv6 forwarding");
    bed.quiet().await;
    bed.host.run("nft", "delete table inet netd").unwrap();
    assert!(bed.hears(|drift| *drift == Drift::Firewall).await, "table");
    assert!(!bed.dataplane.firewall_intact().await.unwrap());
    assert_eq!(bed.dataplane.underlay_mtu().await.unwrap(), 1500);
    bed.host.ip("link add up0 mtu 1450 type veth peer name up1");
    bed.host.ip("link set up0 up");
    bed.host.ip("link set up1 up");
    bed.host.ip("addr add 192.0.2.2/24 dev up0");
    bed.quiet().await;
    bed.host.ip("route add default via 192.0.2.1");
    assert!(bed.hears(|drift| *drift == Drift::Underlay).await, "default route");
    assert_eq!(bed.dataplane.underlay_mtu().await.unwrap(), 1450);
    bed.quiet().await;
    bed.host.ip("link set up0 mtu 1400");
    assert!(bed.hears(|drift| *drift == Drift::Underlay).await, "MTU");
    assert_eq!(bed.dataplane.underlay_mtu().await.unwrap(), 1400);
}

/// The threads that this one starts share a processor with what it runs, and get it only
/// when nobody else wants it: who listens can't keep up with what happens at once.
fn yield_to_others() {
    let mut processors = nix::sched::CpuSet::new();
    processors.set(0).unwrap();
    #[allow(clippy::disallowed_methods)] // as a busy machine would
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &processors).unwrap();
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: a plain system call on the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
    assert_eq!(result, 0);
}

#[tokio::test]
async fn when_events_are_lost_everything_is_to_be_looked_at() {
    yield_to_others();
    let mut bed = Bed::new().await;
    let settings = netd_dataplane::Settings {
        host_netns: Some(bed.host.0.clone()),
        event_buffer: Some(1),
        ..Default::default()
    };
    let (_dataplane, drift) = netd_dataplane::Dataplane::start(settings).unwrap();
    bed.drift = drift;
    bed.host.ip("link add many type veth peer name other");
    let lines: String = (1..1000u32)
        .map(|n| format!("addr add 172.16.{}.{}/32 dev many\n", n / 250, n % 250))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("batch");
    std::fs::write(&file, lines).unwrap();
    bed.host.ip(&format!("-batch {}", file.display()));
    bed.quiet().await;
    // All the addresses go at once: faster than anybody reads that.
    bed.host.run("chrt", "-o 0 ip link del many").unwrap();
    assert!(bed.hears(|drift| *drift == Drift::Everything).await);
    // And it goes on listening.
    bed.quiet().await;
    bed.host.set_sysctl("ipv4/ip_forward", "0");
    assert!(bed.hears(|drift| *drift == Drift::Sysctl).await);
}
