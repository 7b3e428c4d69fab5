//! Host ports from every direction.

use std::{net::IpAddr, sync::Arc};

use super::{
    samples::port,
    testbed::{Netns, is_root},
    topology::{NODE, OUTSIDE, SERVED, Topology, ask_tcp, ask_udp, at},
};
use crate::firewall::{Firewall, FirewallSettings, conntrack::Flows, published::Published};
use netd_domain::{
    PortMapping,
    Protocol::{Tcp, Udp},
    Wiring,
};

/// Pods by their place in the topology: bridged, internal, routed.
const BRIDGED: usize = 0;
const INTERNAL: usize = 3;
const ROUTED: usize = 5;

fn ports() -> Vec<(usize, PortMapping)> {
    let mut all = Vec::new();
    for protocol in [Tcp, Udp] {
        all.push((BRIDGED, port(protocol, (None, 8080), SERVED)));
        all.push((BRIDGED, port(protocol, (Some("127.0.0.1"), 8081), SERVED)));
        all.push((BRIDGED, port(protocol, (Some(NODE[0]), 8082), SERVED)));
        all.push((BRIDGED, port(protocol, (Some(NODE[1]), 8082), SERVED)));
        all.push((INTERNAL, port(protocol, (None, 8084), SERVED)));
        all.push((ROUTED, port(protocol, (None, 8085), SERVED)));
    }
    all
}

fn both(test: impl Fn(&Topology)) {
    if is_root() {
        for calls in [true, false] {
            eprintln!("bridge-nf-call-iptables: {calls}");
            test(&Topology::new(calls, &ports()));
        }
    }
}

/// The source that the pod saw, by UDP and TCP alike.
fn seen(from: &Netns, to: &str, port: u16) -> Option<IpAddr> {
    let (udp, tcp) = (ask_udp(from, None, at(to, port)), ask_tcp(from, at(to, port)));
    assert_eq!(udp.is_some(), tcp.is_some(), "{to} {port}: {udp:?} {tcp:?}");
    assert_eq!(udp, tcp);
    tcp
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

#[test]
fn from_outside_the_source_is_kept() {
    both(|t| {
        for (family, outside) in OUTSIDE.iter().enumerate() {
            assert_eq!(seen(&t.outside, NODE[family], 8080), ip(outside));
            assert_eq!(seen(&t.outside, NODE[family], 8082), ip(outside));
            assert_eq!(seen(&t.outside, NODE[family], 8085), ip(outside));
        }
    });
}

#[test]
fn from_the_host_by_its_own_addresses_and_by_127001() {
    both(|t| {
        for number in [8080, 8085] {
            for to in [NODE[0], NODE[1], "10.88.0.1", "fd00:88::1", "127.0.0.1"] {
                let source = seen(&t.node, to, number);
                assert!(source.is_some_and(|ip| !ip.is_loopback()), "{to} {number}: {source:?}");
            }
        }
        assert!(seen(&t.node, "127.0.0.1", 8081).is_some());
        assert_eq!(seen(&t.node, NODE[0], 8081), None);
        assert!(seen(&t.node, NODE[0], 8082).is_some());
        assert_eq!(seen(&t.node, "10.88.0.1", 8082), None);
        assert!(seen(&t.node, NODE[0], 8084).is_some(), "the host reaches internal pods");
    });
}

#[test]
fn towards_the_ipv6_loopback_it_is_refused_at_once() {
    both(|t| {
        let refused = t.node.run(|| std::net::TcpStream::connect("[::1]:8080").unwrap_err());
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn from_pods_of_the_network_and_from_the_pod_itself() {
    both(|t| {
        for (pod, number) in [(BRIDGED, 8080), (ROUTED, 8085)] {
            for from in [pod, pod + 1] {
                for to in [NODE[0], NODE[1]] {
                    let source = seen(&t.pods[from].netns, to, number);
                    let direct = [t.pods[from].v4(), t.pods[from].v6()];
                    assert!(
                        source.is_some_and(|ip| !direct.contains(&ip)),
                        "{from} {to} {source:?}"
                    );
                }
            }
        }
        assert!(seen(&t.pods[BRIDGED].netns, "10.88.0.1", 8080).is_some(), "by the gateway");
    });
}

#[test]
fn from_pods_of_other_networks_as_from_outside_but_never_into_or_out_of_internal_ones() {
    both(|t| {
        for to in [NODE[0], NODE[1], "10.90.0.1"] {
            let source = seen(&t.pods[2].netns, to, 8080);
            assert!(source == Some(t.pods[2].v4()) || source == Some(t.pods[2].v6()), "{source:?}");
            assert_eq!(seen(&t.pods[INTERNAL].netns, to, 8080), None);
            assert_eq!(seen(&t.pods[2].netns, to, 8084), None);
        }
        assert_eq!(seen(&t.outside, NODE[0], 8084), None);
        assert!(seen(&t.pods[INTERNAL + 1].netns, "10.92.0.1", 8084).is_some());
    });
}

#[test]
fn other_ports_of_the_host_are_not_touched_nor_their_connections_marked() {
    both(|t| {
        t.node.run(|| {
            let listener = std::net::TcpListener::bind("[::]:9999").unwrap();
            std::thread::spawn(move || listener.incoming().flatten().for_each(drop));
        });
        let connected = |netns: &Netns, to: &'static str| {
            netns.run(move || std::net::TcpStream::connect(at(to, 9999)).is_ok())
        };
        assert!(connected(&t.outside, NODE[0]) && connected(&t.pods[0].netns, "10.88.0.1"));
        let flows = t.node.sh("conntrack -L -p tcp --dport 9999 2>/dev/null");
        assert!(flows.contains("dport=9999") && flows.contains("mark=0"), "{flows}");
        assert!(!flows.contains("mark=8192"), "{flows}");
    });
}

#[test]
fn packets_to_or_from_loopback_addresses_are_dropped_on_the_wire() {
    both(|t| {
        // route_localnet is on: without the rule the host would answer (CVE-2020-8558).
        t.node.run(|| {
            let socket = std::net::UdpSocket::bind("127.0.0.1:7777").unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(b"192.0.2.99", from);
                }
            });
        });
        for (netns, via) in [(&t.outside, "192.0.2.1"), (&t.pods[0].netns, "10.88.0.1")] {
            netns.sh(&format!(
                "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
                 ip rule add pref 5 lookup local; ip rule del pref 0
                 ip route add 127.0.0.1 via {via} dev eth0 table 9; ip rule add pref 1 lookup 9"
            ));
            let from = if via == "10.88.0.1" { "10.88.0.5" } else { OUTSIDE[0] };
            assert_eq!(ask_udp(netns, ip(from), at("127.0.0.1", 7777)), None, "{via}");
            assert_eq!(ask_udp(netns, ip(from), at("127.0.0.1", 8081)), None, "{via}");
        }
        assert!(ask_udp(&t.node, None, at("127.0.0.1", 7777)).is_some());
    });
}

/// Ends flows as the node does when these endpoints have host ports.
fn end_stale<'a>(firewall: &Firewall, endpoints: impl Iterator<Item = &'a Arc<Wiring>>) {
    let published = Published::new(FirewallSettings::default().hostport_mark);
    published.replace(endpoints);
    published.set_node(firewall.node_addresses().clone());
    Flows::open(Arc::new(published)).unwrap().end_stale(&[]);
}

#[test]
fn udp_flows_follow_a_port_to_its_new_pod_and_leave_the_old() {
    both(|t| {
        let client = t.outside.run(|| std::net::UdpSocket::bind((OUTSIDE[0], 5555)).unwrap());
        client.set_read_timeout(Some(std::time::Duration::from_millis(400))).unwrap();
        let asked = |port: u16| {
            client.send_to(b"?", at(NODE[0], port)).unwrap();
            client.recv_from(&mut [0; 64]).is_ok()
        };
        assert!(!asked(8090), "nobody has it yet");
        assert!(asked(8080));
        let count = |t: &Topology, text: &str| {
            t.node.sh("conntrack -L -p udp --dport 8080 2>/dev/null; true").matches(text).count()
        };
        assert_eq!(count(t, "src=10.88.0.5 dst=192.0.2.2"), 1);
        t.firewall(|firewall, state| {
            firewall.remove_endpoint(&state.endpoints[BRIDGED]).unwrap();
            end_stale(firewall, state.endpoints.iter().skip(BRIDGED + 1));
            let mut heir = (*state.endpoints[BRIDGED + 1]).clone();
            heir.port_mappings =
                vec![port(Udp, (None, 8080), SERVED), port(Udp, (None, 8090), SERVED)];
            firewall.add_endpoint(&heir).unwrap();
            end_stale(firewall, [&Arc::new(heir)].into_iter());
        });
        assert_eq!(count(t, "src=10.88.0.5 dst=192.0.2.2"), 0, "a flow to the old pod");
        assert!(asked(8080) && asked(8090));
        assert_eq!(count(t, "src=10.88.0.6 dst=192.0.2.2"), 1);
    });
}

/// On the node's own addresses and 127.0.0.1: not on those that another program serves.
#[test]
fn a_port_is_on_the_nodes_own_addresses_and_on_none_of_a_service() {
    both(|t| {
        // kube-proxy's and NodeLocal DNS' devices are dummy ones, where the kernel has them.
        t.node.sh("for name in kube-ipvs0 nodelocaldns; do
                 ip link add $name type dummy || ip link add $name type bridge
                 ip link set $name up
             done
             ip addr add 10.96.0.10/32 dev kube-ipvs0; ip addr add fd00:96::10/128 dev kube-ipvs0
             ip addr add 169.254.20.10/32 dev nodelocaldns; ip addr add 198.51.100.7/32 dev lo
             ip addr add 203.0.113.7/24 dev up0");
        let others = ["10.96.0.10", "fd00:96::10", "169.254.20.10", "198.51.100.7", "127.0.0.53"];
        let foreign = |t: &Topology, to: &str| {
            let to = at(to, 8080);
            t.node.run(move || {
                let server = std::net::UdpSocket::bind(to).unwrap();
                let client = std::net::UdpSocket::bind((server.local_addr().unwrap().ip(), 0));
                let client = client.unwrap();
                server.set_read_timeout(Some(std::time::Duration::from_millis(400))).unwrap();
                client.send_to(b"?", to).unwrap();
                server.recv_from(&mut [0; 8]).is_ok()
            })
        };
        assert_eq!(seen(&t.outside, "203.0.113.7", 8080), None, "not followed yet");
        t.firewall(|firewall, _| assert!(firewall.follow_addresses().unwrap()));
        t.firewall(|firewall, _| assert!(!firewall.follow_addresses().unwrap(), "again"));
        t.outside.sh("ip route add 203.0.113.0/24 dev eth0; ip route add 10.96.0.10 via 192.0.2.1");
        assert!(seen(&t.outside, "203.0.113.7", 8080).is_some(), "a new address of the node");
        for to in others {
            assert!(foreign(t, to), "{to} was taken away from who serves it");
        }
        t.node.sh("ip addr del 203.0.113.7/24 dev up0");
        t.firewall(|firewall, state| {
            assert!(firewall.follow_addresses().unwrap());
            assert!(firewall.intact(state).unwrap());
        });
        assert!(!t.node.sh("nft list set inet netd node4").contains("203.0.113.7"));
        assert!(seen(&t.outside, NODE[0], 8080).is_some());
    });
}
