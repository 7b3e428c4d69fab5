//! Settings of the host that administrators have.

use std::{sync::Arc, time::Duration};

use netd_dataplane::{Drift, RepairKind};
use netd_domain::RepairScope;

use crate::bed::{Bed, ip, on_bridge, on_route, reaches};

#[tokio::test]
async fn pods_get_ipv6_where_new_links_have_it_off() {
    let bed = Bed::new().await;
    bed.host.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
    for (wiring, other) in [(on_bridge(5), on_bridge(6)), (on_route(5), on_route(6))] {
        let (wiring, other) = (Arc::new(wiring), Arc::new(other));
        let (pod, peer) = (bed.attach(&wiring).await, bed.attach(&other).await);
        for v6 in [false, true] {
            assert!(reaches(&pod, ip(&wiring, v6), &peer, ip(&other, v6)), "IPv6: {v6}");
        }
        bed.assert_right(&pod, &wiring).await;
        let host = &wiring.host_ifname;
        bed.host.set_sysctl(&format!("ipv6/conf/{host}/disable_ipv6"), "1");
        bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Host).await.unwrap();
        bed.assert_right(&pod, &wiring).await;
        assert!(reaches(&pod, ip(&wiring, true), &peer, ip(&other, true)), "switched off later");
    }
}

#[tokio::test]
async fn pods_are_forwarded_for_where_new_links_are_not() {
    let bed = Bed::new().await;
    bed.host.set_sysctl("ipv4/conf/default/forwarding", "0");
    let (wiring, other) = (Arc::new(on_route(5)), Arc::new(on_route(6)));
    let (pod, peer) = (bed.attach(&wiring).await, bed.attach(&other).await);
    assert!(reaches(&pod, ip(&wiring, false), &peer, ip(&other, false)));
    bed.assert_right(&pod, &wiring).await;
    // A bridge that is made again.
    bed.host.ip("link del cni0");
    bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap();
    assert_eq!(bed.host.sysctl("ipv4/conf/cni0/forwarding"), "1");
}

#[tokio::test]
async fn forwarding_that_is_switched_off_on_one_link_is_heard_and_on_again() {
    let mut bed = Bed::new().await;
    bed.host.ip("link add up0 type veth peer name up1");
    bed.host.ip("link set up0 up");
    bed.host.ip("addr add 192.0.2.2/24 dev up0");
    bed.host.ip("route add default via 192.0.2.1");
    let wiring = Arc::new(on_route(5));
    let pod = bed.attach(&wiring).await;
    let host = wiring.host_ifname.clone();
    let network = "cni0".parse().unwrap();
    for (link, wanted) in [
        (host.as_str(), Drift::Endpoint(host.clone())),
        ("cni0", Drift::Network(network)),
        ("up0", Drift::Sysctl),
    ] {
        bed.quiet().await;
        let path = format!("ipv4/conf/{link}/forwarding");
        bed.host.set_sysctl(&path, "0");
        assert!(bed.hears(|drift| *drift == wanted).await, "{link}");
        let mut repairs =
            bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Host).await.unwrap();
        repairs.extend(bed.dataplane.ensure_network(bed.bridged.clone()).await.unwrap());
        assert_eq!(bed.host.sysctl(&path), "1", "{link}");
        let kinds: Vec<_> = repairs.iter().map(|repair| repair.kind).collect();
        assert!(matches!(kinds[..], [RepairKind::Link | RepairKind::Sysctl]), "{repairs:?}");
    }
}

#[tokio::test]
async fn a_card_that_appears_later_takes_router_advertisements() {
    let bed = Bed::new().await;
    let accepts = |link: &str| bed.host.sysctl(&format!("ipv6/conf/{link}/accept_ra"));
    let until = async |link: &str, wanted: &str| {
        for _ in 0..100 {
            if accepts(link) == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{link}: accept_ra is {}, not {wanted}", accepts(link));
    };
    // The only one of a node in a container.
    bed.host.ip("link add up0 type veth peer name up1");
    bed.host.ip("link set up1 up");
    bed.host.ip("link set up0 up");
    until("up0", "2").await;
    bed.host.ip("addr add 192.0.2.2/24 dev up0");
    bed.host.ip("route add default via 192.0.2.1");
    bed.host.ip("link add link up0 name nic5 type macvlan");
    bed.host.ip("link set nic5 up");
    until("nic5", "2").await;
    // An administrator's choice, another program's pod, and netd's own pods.
    bed.host.ip("link add link up0 name nic6 type macvlan");
    bed.host.set_sysctl("ipv6/conf/nic6/accept_ra", "0");
    bed.host.ip("link add cali0 type veth peer name cali1");
    bed.host.ip("link set cali0 up");
    bed.host.ip("link set nic6 up");
    let wiring = Arc::new(on_route(5));
    let _pod = bed.attach(&wiring).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(accepts("nic6"), "0");
    assert_eq!(accepts("cali0"), "1");
    assert_eq!(accepts(wiring.host_ifname.as_str()), "1");
}
