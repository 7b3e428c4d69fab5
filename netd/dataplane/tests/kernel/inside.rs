//! Once the attach is answered, the pod's side is the pod's.

use std::sync::Arc;

use netd_domain::{RepairScope, Wiring};

use crate::bed::{Bed, Space, ip, on_bridge, on_route, reaches};

/// Everything of the sandbox's side but counters.
fn state(pod: &Space) -> String {
    [
        "-d link",
        "addr",
        "route show table all",
        "-6 route show table all",
        "neigh show nud permanent",
    ]
    .map(|line| pod.ip(&format!("-o {line}")))
    .concat()
}

fn index(host: &Space, wiring: &Wiring) -> String {
    let shown = host.ip(&format!("-o link show dev {}", wiring.host_ifname));
    shown.split(':').next().unwrap().to_owned()
}

async fn repair(bed: &Bed, pod: &Space, wiring: &Arc<Wiring>) -> Vec<String> {
    let repairs = bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Host).await;
    repairs.unwrap().iter().map(ToString::to_string).collect()
}

async fn check(bed: &Bed, pod: &Space, wiring: &Arc<Wiring>) -> Vec<String> {
    bed.dataplane.check(pod.open(), wiring.clone()).await.unwrap()
}

/// Changes the pod's side by `lines` of `ip`, and expects that nothing is touched, though the
/// change is seen; whether the endpoint still works is `works`.
async fn is_left(bed: &Bed, wiring: &Arc<Wiring>, lines: &[&str], works: bool) {
    let pod = bed.attach(wiring).await;
    lines.iter().for_each(|line| drop(pod.ip(line)));
    // A port's carrier comes a moment later.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let (before, host) = (state(&pod), index(&bed.host, wiring));
    assert_eq!(repair(bed, &pod, wiring).await, Vec::<String>::new(), "{lines:?}");
    assert_eq!(state(&pod), before, "{lines:?}");
    assert_eq!(index(&bed.host, wiring), host, "{lines:?}: another pair");
    let failures = check(bed, &pod, wiring).await;
    assert_eq!(failures.is_empty(), works, "{lines:?}: {failures:?}");
    let changes = bed.dataplane.changes_inside(pod.open(), wiring.clone()).await.unwrap();
    assert!(!changes.is_empty(), "{lines:?}");
    bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    bed.dataplane.delete_detached().await.unwrap();
}

#[tokio::test]
async fn what_later_plugins_change_is_left_and_no_failure() {
    let bed = Bed::new().await;
    for wiring in [Arc::new(on_bridge(5)), Arc::new(on_route(6))] {
        let via = wiring.addresses[0].gateway.unwrap();
        let own = ip(&wiring, false);
        for lines in [
            vec!["link set eth0 mtu 1300"],
            vec!["link set lo down"],
            // As sbr does it.
            vec![
                &format!("route add {via}/32 dev eth0 table 100"),
                &format!("route add default via {via} dev eth0 table 100"),
                &format!("rule add from {own}/32 table 100"),
                "route del default",
            ],
        ] {
            is_left(&bed, &wiring, &lines, true).await;
        }
    }
}

#[tokio::test]
async fn what_a_sandbox_takes_over_is_left_and_check_says_what_is_missing() {
    let bed = Bed::new().await;
    for wiring in [Arc::new(on_bridge(5)), Arc::new(on_route(6))] {
        for lines in [
            // gVisor.
            vec!["addr flush dev eth0"],
            vec!["route flush table main", "addr flush dev eth0"],
            vec!["route del default"],
            vec!["-6 route del default"],
            vec!["link set eth0 down"],
            vec!["link set eth0 down", "addr flush dev eth0"],
            // KubeVirt.
            vec![
                "addr flush dev eth0",
                "link set eth0 down",
                "link set eth0 name eth0-nic",
                "link set eth0-nic address 02:00:00:00:00:07",
                "link add k6t-eth0 type bridge",
                "link set eth0-nic master k6t-eth0",
                "link set eth0-nic up",
                "link add eth0 type bridge",
            ],
        ] {
            is_left(&bed, &wiring, &lines, false).await;
        }
    }
}

#[tokio::test]
async fn a_pair_whose_other_end_was_moved_on_is_left_until_it_is_lost() {
    let bed = Bed::new().await;
    for wiring in [Arc::new(on_bridge(5)), Arc::new(on_route(6))] {
        let pod = bed.attach(&wiring).await;
        let (inner, host) = (Space::new(), index(&bed.host, &wiring));
        pod.ip(&format!("link set eth0 netns {}", inner.path().display()));
        assert_eq!(repair(&bed, &pod, &wiring).await, Vec::<String>::new());
        assert_eq!(index(&bed.host, &wiring), host);
        inner.ip("link show dev eth0");
        assert!(!check(&bed, &pod, &wiring).await.is_empty());
        inner.ip("link del eth0");
        let made = repair(&bed, &pod, &wiring).await;
        assert!(made.iter().any(|text| text.contains("make the veth pair")), "{made:?}");
        bed.assert_right(&pod, &wiring).await;
    }
}

#[tokio::test]
async fn an_attach_that_was_cut_off_is_completed() {
    let bed = Bed::new().await;
    let peers = [Arc::new(on_bridge(15)), Arc::new(on_route(16))];
    for (wiring, peer) in [Arc::new(on_bridge(5)), Arc::new(on_route(6))].iter().zip(&peers) {
        let (pod, other) = (bed.attach(wiring).await, bed.attach(peer).await);
        // As the pair is made, before anything is set inside.
        for line in ["addr flush dev eth0", "link set eth0 down", "link set eth0 addrgenmode eui64"]
        {
            pod.ip(line);
        }
        assert!(!repair(&bed, &pod, wiring).await.is_empty());
        bed.assert_right(&pod, wiring).await;
        for v6 in [false, true] {
            assert!(reaches(&pod, ip(wiring, v6), &other, ip(peer, v6)));
        }
    }
}

#[tokio::test]
async fn what_is_changed_on_the_host_is_set_back_and_the_pair_stays() {
    let bed = Bed::new().await;
    let peers = [Arc::new(on_bridge(15)), Arc::new(on_route(16))];
    for (wiring, peer) in [Arc::new(on_bridge(5)), Arc::new(on_route(6))].iter().zip(&peers) {
        let (pod, other) = (bed.attach(wiring).await, bed.attach(peer).await);
        let host = wiring.host_ifname.to_string();
        let inside = index(&bed.host, wiring);
        for damage in [
            format!("link set {host} name other0"),
            format!("link set {host} group 7"),
            format!("link set {host} master cni0"),
            format!("link set {host} down"),
            format!("link set {host} address 02:00:00:00:00:01"),
        ] {
            if damage.ends_with("cni0") && peer.network.as_str() == "default" {
                continue;
            }
            bed.host.ip(&damage);
            assert!(!repair(&bed, &pod, wiring).await.is_empty(), "{damage}");
            assert_eq!(index(&bed.host, wiring), inside, "{damage}: another pair");
            bed.assert_right(&pod, wiring).await;
            assert!(reaches(&pod, ip(wiring, false), &other, ip(peer, false)), "{damage}");
        }
    }
}
