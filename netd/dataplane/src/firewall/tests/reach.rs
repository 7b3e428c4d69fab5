//! Who reaches whom, and under which address. With and without br_netfilter.

use std::net::IpAddr;

use super::{
    testbed::{Netns, is_root},
    topology::{NODE, OUTSIDE, SERVED, Topology, ask_tcp, ask_udp, at},
};

fn both(test: impl Fn(&Topology)) {
    if is_root() {
        for calls in [true, false] {
            eprintln!("bridge-nf-call-iptables: {calls}");
            test(&Topology::new(calls, &[]));
        }
    }
}

/// Both families, both transports.
fn reaches(from: &Netns, to: [IpAddr; 2]) -> [Option<IpAddr>; 4] {
    let to = to.map(|ip| at(ip, SERVED));
    [
        ask_udp(from, None, to[0]),
        ask_tcp(from, to[0]),
        ask_udp(from, None, to[1]),
        ask_tcp(from, to[1]),
    ]
}

fn twice(v4: IpAddr, v6: IpAddr) -> [Option<IpAddr>; 4] {
    [Some(v4), Some(v4), Some(v6), Some(v6)]
}

const NOBODY: [Option<IpAddr>; 4] = [None; 4];

#[test]
fn pods_of_one_network_reach_each_other_as_themselves() {
    both(|t| {
        for (from, to) in [(0, 1), (3, 4), (5, 6)] {
            let (from, to) = (&t.pods[from], &t.pods[to]);
            let got = reaches(&from.netns, [to.v4(), to.v6()]);
            assert_eq!(got, twice(from.v4(), from.v6()), "{}", from.wiring.host_ifname);
        }
    });
}

#[test]
fn pods_of_different_networks_do_not_reach_each_other() {
    both(|t| {
        for (from, to) in [(0, 2), (0, 3), (3, 0), (5, 0), (0, 5)] {
            let got = reaches(&t.pods[from].netns, [t.pods[to].v4(), t.pods[to].v6()]);
            assert_eq!(got, NOBODY, "{from} to {to}");
        }
    });
}

#[test]
fn pods_go_out_under_the_nodes_address_but_internal_ones_not_at_all() {
    both(|t| {
        let outside = OUTSIDE.map(|ip| ip.parse().unwrap());
        let node = NODE.map(|ip| ip.parse().unwrap());
        for from in [0, 2, 5] {
            let got = reaches(&t.pods[from].netns, outside);
            assert_eq!(got, twice(node[0], node[1]), "pod {from}");
        }
        assert_eq!(reaches(&t.pods[3].netns, outside), NOBODY);
        assert_eq!(reaches(&t.outside, [t.pods[3].v4(), t.pods[3].v6()]), NOBODY);
    });
}

#[test]
fn the_host_reaches_every_pod_internal_ones_too() {
    both(|t| {
        for pod in &t.pods {
            let got = reaches(&t.node, [pod.v4(), pod.v6()]);
            assert!(got.iter().all(Option::is_some), "{} {got:?}", pod.wiring.host_ifname);
        }
    });
}

#[test]
fn what_kube_proxy_marked_is_left_to_it() {
    both(|t| {
        t.node.sh("nft add table ip kube; nft add chain ip kube marks \
                   '{ type filter hook forward priority 0; }'; \
                   nft add rule ip kube marks meta mark set meta mark or 0x4000");
        // Unmasqueraded: the outside sees the pod itself, and has a route back.
        let pod = &t.pods[0];
        assert_eq!(ask_udp(&pod.netns, None, at(OUTSIDE[0], SERVED)), Some(pod.v4()));
    });
}

#[test]
fn an_endpoint_without_elements_sends_nothing() {
    both(|t| {
        for i in [0, 5] {
            t.firewall(move |firewall, state| {
                firewall.remove_endpoint(&state.endpoints[i]).unwrap();
            });
            let got = reaches(&t.pods[i].netns, [t.pods[i + 1].v4(), t.pods[i + 1].v6()]);
            assert_eq!(got, NOBODY, "pod {i}");
        }
    });
}
