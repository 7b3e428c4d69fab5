//! Attaches that work, and that leave nothing when they don't.

use std::{net::IpAddr, sync::Arc, time::Duration};

use netd_dataplane::DataplaneError;
use netd_domain::RepairScope;

use crate::bed::{Bed, Space, ip, on_bridge, on_route, reaches};

#[tokio::test]
async fn two_bridged_pods_reach_each_other_and_the_gateway_by_both_families() {
    let bed = Bed::new().await;
    let (a, b) = (Arc::new(on_bridge(5)), Arc::new(on_bridge(6)));
    let (pod_a, pod_b) = (bed.attach(&a).await, bed.attach(&b).await);
    for v6 in [false, true] {
        assert!(reaches(&pod_a, ip(&a, v6), &pod_b, ip(&b, v6)), "IPv6: {v6}");
        let gateway = if v6 { "fd00:88::1" } else { "10.88.0.1" }.parse().unwrap();
        assert!(reaches(&pod_a, ip(&a, v6), &bed.host, gateway), "gateway, IPv6: {v6}");
    }
    bed.assert_right(&pod_a, &a).await;
    bed.assert_right(&pod_b, &b).await;
}

#[tokio::test]
async fn two_routed_pods_reach_each_other_by_both_families() {
    let bed = Bed::new().await;
    let (a, b) = (Arc::new(on_route(5)), Arc::new(on_route(6)));
    let pods = [bed.attach(&a).await, bed.attach(&b).await];
    for v6 in [false, true] {
        assert!(reaches(&pods[0], ip(&a, v6), &pods[1], ip(&b, v6)), "IPv6: {v6}");
    }
    for (pod, wiring) in pods.iter().zip([&a, &b]) {
        bed.assert_right(pod, wiring).await;
    }
}

/// No neighbour is known yet: what the kernel dropped would come a second later.
#[tokio::test]
async fn the_first_packet_to_a_new_pod_and_from_it_arrives() {
    let bed = Bed::new().await;
    // The routed network's pods see the host by the other one's addresses.
    let gateways: [IpAddr; 2] = ["10.88.0.1", "fd00:88::1"].map(|ip| ip.parse().unwrap());
    let outside = gateways.map(|own| bed.host.udp(own));
    for n in 10..90 {
        let mut wiring = if n % 2 == 0 { on_bridge(n) } else { on_route(n) };
        let v6 = n % 4 < 2;
        if !v6 {
            wiring.addresses.truncate(1);
            wiring.routes.retain(|route| route.destination.addr().is_ipv4());
        }
        let wiring = Arc::new(wiring);
        let pod = bed.attach(&wiring).await;
        let inside = pod.udp(ip(&wiring, v6));
        let outside = &outside[usize::from(v6)];
        let (from, to) = if n % 8 < 4 { (&inside, outside) } else { (outside, &inside) };
        to.set_read_timeout(Some(Duration::from_millis(800))).unwrap();
        from.send_to(b"first", to.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(to.recv_from(&mut buffer).ok(), from.local_addr().ok().map(|a| (5, a)));
        bed.assert_right(&pod, &wiring).await;
    }
}

#[tokio::test]
async fn both_ends_are_as_the_wiring_says_and_nothing_more() {
    let bed = Bed::new().await;
    let wiring = Arc::new(on_bridge(9));
    let pod = Space::new();
    pod.ip("link set lo down");
    bed.try_attach(&pod, &wiring).await.unwrap();
    let inside = pod.ip("-d addr show dev eth0");
    let outside = bed.host.ip(&format!("-d addr show dev {}", wiring.host_ifname));
    assert!(inside.contains("mtu 1400") && inside.contains(&wiring.mac.to_string()), "{inside}");
    assert!(inside.contains("10.88.0.9/16") && inside.contains("fd00:88::9/64"), "{inside}");
    assert!(!inside.contains("tentative"), "{inside}");
    // One link-local address, netd's own.
    assert_eq!(inside.matches("scope link").count(), 1, "{inside}");
    assert!(outside.contains("mtu 1400") && outside.contains("master cni0"), "{outside}");
    assert!(outside.contains("hairpin on") && !outside.contains("inet"), "{outside}");
    assert!(pod.ip("link show dev lo").contains("UP"));
}

#[tokio::test]
async fn a_taken_name_in_the_sandbox_fails_and_leaves_nothing_on_the_host() {
    let bed = Bed::new().await;
    let wiring = Arc::new(on_bridge(5));
    let pod = Space::new();
    pod.ip("link add eth0 type ifb");
    let result = bed.try_attach(&pod, &wiring).await;
    let place = |r: &Result<_, DataplaneError>| match r {
        Err(DataplaneError::InterfaceExists { place, .. }) => *place,
        other => panic!("{other:?}"),
    };
    assert_eq!(place(&result.map(drop)), "the sandbox");
    assert_eq!(bed.dataplane.host_links().await.unwrap(), vec![]);
    let repaired = bed.dataplane.repair(pod.open(), wiring.clone(), RepairScope::Pod).await;
    assert_eq!(place(&repaired.map(drop)), "the sandbox");
    pod.ip("link del eth0");
    bed.host.ip(&format!("link add {} type ifb", wiring.host_ifname));
    let result = bed.try_attach(&pod, &wiring).await;
    assert_eq!(place(&result.map(drop)), "the host");
    assert!(pod.run("ip", "link show dev eth0").is_err());
}

#[tokio::test]
async fn a_step_that_fails_late_takes_the_earlier_ones_back() {
    let bed = Bed::new().await;
    let mut wiring = on_route(5);
    // A next hop that no on-link route leads to: refused by the kernel in the sandbox.
    wiring.routes.remove(0);
    let wiring = Arc::new(wiring);
    let pod = Space::new();
    let error = bed.try_attach(&pod, &wiring).await.unwrap_err().to_string();
    assert!(error.contains("route to 0.0.0.0/0 via 169.254.1.1"), "{error}");
    assert_eq!(bed.dataplane.host_links().await.unwrap(), vec![]);
    assert!(pod.run("ip", "link show dev eth0").is_err());
    assert!(bed.dataplane.firewall_intact().await.unwrap());
    // And the same endpoint can be attached rightly at once.
    let wiring = Arc::new(on_route(5));
    bed.try_attach(&pod, &wiring).await.unwrap();
    bed.assert_right(&pod, &wiring).await;
}

#[tokio::test]
async fn a_port_that_is_taken_takes_the_links_back() {
    use netd_domain::{PortMapping, Protocol};
    let bed = Bed::new().await;
    let mapped = |mut wiring: netd_domain::Wiring| {
        let (host_port, container_port) = (8080, 80);
        let protocol = Protocol::Tcp;
        wiring.port_mappings =
            vec![PortMapping { host_port, container_port, protocol, host_ip: None }];
        Arc::new(wiring)
    };
    let (a, b) = (mapped(on_route(5)), mapped(on_bridge(6)));
    let pod_a = bed.attach(&a).await;
    let pod_b = Space::new();
    let error = bed.try_attach(&pod_b, &b).await.unwrap_err();
    assert!(matches!(error, DataplaneError::PortTaken { .. }), "{error}");
    assert!(pod_b.run("ip", "link show dev eth0").is_err());
    bed.assert_right(&pod_a, &a).await;
    let local = format!("ipv4/conf/{}/route_localnet", a.host_ifname);
    assert_eq!(bed.host.sysctl(&local), "1");
}

#[tokio::test]
async fn a_sandbox_made_without_ipv6_gets_it_with_its_address() {
    let bed = Bed::new().await;
    for wiring in [on_bridge(5), on_route(6)] {
        let wiring = Arc::new(wiring);
        let pod = Space::new();
        pod.set_sysctl("ipv6/conf/all/disable_ipv6", "1");
        pod.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
        bed.try_attach(&pod, &wiring).await.unwrap();
        bed.assert_right(&pod, &wiring).await;
        assert_eq!(pod.sysctl("ipv6/conf/eth0/disable_ipv6"), "0");
    }
}

#[tokio::test]
async fn small_mtus_without_ipv6_work() {
    let bed = Bed::new().await;
    for mut wiring in [on_bridge(5), on_route(6)] {
        wiring.mtu = 600;
        wiring.addresses.truncate(1);
        wiring.routes.retain(|r| r.destination.addr().is_ipv4());
        let wiring = Arc::new(wiring);
        let pod = bed.attach(&wiring).await;
        bed.assert_right(&pod, &wiring).await;
    }
}

#[tokio::test]
async fn two_hundred_attaches_at_once_all_work_and_leave_together() {
    let bed = Bed::new().await;
    let pods: Vec<_> = (2..202u16)
        .map(|n| (Space::new(), Arc::new(if n % 2 == 0 { on_bridge(n) } else { on_route(n) })))
        .collect();
    let attaches = pods.iter().map(|(pod, wiring)| {
        let (dataplane, netns, wiring) = (bed.dataplane.clone(), pod.open(), wiring.clone());
        tokio::spawn(async move { dataplane.attach(netns, wiring).await })
    });
    for attach in attaches.collect::<Vec<_>>() {
        attach.await.unwrap().unwrap();
    }
    let (first, last) = (&pods[0], &pods[198]);
    assert!(reaches(&first.0, ip(&first.1, false), &last.0, ip(&last.1, false)));
    for (pod, wiring) in &pods {
        bed.assert_right(pod, wiring).await;
    }
    for (_, wiring) in &pods {
        bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    }
    let links = bed.dataplane.host_links().await.unwrap();
    assert!(links.len() == 200 && links.iter().all(|l| l.detached), "{links:?}");
    bed.dataplane.delete_detached().await.unwrap();
    assert_eq!(bed.dataplane.host_links().await.unwrap(), vec![]);
    assert!(pods.iter().all(|(pod, _)| pod.run("ip", "link show dev eth0").is_err()));
}

#[tokio::test]
async fn an_endpoint_comes_back_while_its_old_link_is_detached() {
    let bed = Bed::new().await;
    let wiring = Arc::new(on_bridge(5));
    let pod = bed.attach(&wiring).await;
    bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    bed.try_attach(&pod, &wiring).await.unwrap();
    bed.assert_right(&pod, &wiring).await;
    // Another endpoint's name in the same sandbox: only the sandbox's name collides.
    bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    let other = Arc::new(on_bridge(6));
    bed.try_attach(&pod, &other).await.unwrap();
    bed.assert_right(&pod, &other).await;
}

#[tokio::test]
async fn parking_and_reaping_what_is_not_there_is_fine() {
    let bed = Bed::new().await;
    bed.dataplane.detach_link(Arc::new(on_bridge(5))).await.unwrap();
    bed.dataplane.delete_detached().await.unwrap();
    bed.dataplane.remove_stray(&on_bridge(5).host_ifname).await.unwrap();
    bed.dataplane.remove_network(bed.routed.clone()).await.unwrap();
}

#[tokio::test]
async fn links_that_an_earlier_process_detached_are_deleted() {
    let bed = Bed::new().await;
    let wirings: Vec<_> = (2..102).map(|n| Arc::new(on_route(n))).collect();
    let mut pods = Vec::new();
    for wiring in &wirings {
        pods.push(bed.attach(wiring).await);
        bed.dataplane.detach_link(wiring.clone()).await.unwrap();
    }
    let (later, _drift) = bed.another();
    assert_eq!(later.host_links().await.unwrap().iter().filter(|l| l.detached).count(), 100);
    later.delete_detached().await.unwrap();
    assert_eq!(later.host_links().await.unwrap(), vec![]);
}

#[tokio::test]
async fn a_limiting_device_whose_pod_is_gone_is_a_stray() {
    let bed = Bed::new().await;
    let mut wiring = on_route(5);
    wiring.bandwidth.egress_rate = 1_000_000;
    let wiring = Arc::new(wiring);
    bed.attach(&wiring).await;
    let _ = bed.host.run("ip", &format!("link del {}", wiring.host_ifname));
    let links = bed.dataplane.host_links().await.unwrap();
    assert_eq!(links.len(), 1);
    assert_eq!(links[0].ifname, wiring.host_ifname);
    bed.dataplane.remove_stray(&wiring.host_ifname).await.unwrap();
    assert_eq!(bed.dataplane.host_links().await.unwrap(), vec![]);
}

#[tokio::test]
async fn an_attach_is_finished_although_its_caller_went_away() {
    let bed = Bed::new().await;
    let mut left = Vec::new();
    // The threads may be done before the first look; of a few attaches one is left waiting.
    for n in 5..15 {
        let (pod, wiring) = (Space::new(), Arc::new(on_bridge(n)));
        let attach = bed.try_attach(&pod, &wiring);
        let finished = tokio::select! {
            biased;
            _ = attach => true,
            () = std::future::ready(()) => false,
        };
        if !finished {
            left.push((pod, wiring));
        }
    }
    assert!(!left.is_empty(), "each attach was done before anybody looked");
    // The threads work in order: once the next one is done, so are those before it.
    bed.attach(&Arc::new(on_bridge(15))).await;
    for (pod, wiring) in &left {
        bed.assert_right(pod, wiring).await;
    }
}
