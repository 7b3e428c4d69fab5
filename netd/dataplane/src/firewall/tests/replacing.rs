//! Tables that are replaced under traffic.

use std::{
    net::{IpAddr, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    samples::{network, port},
    testbed::is_root,
    topology::{NODE, SERVED, Topology, at},
};
use crate::firewall::{FirewallSettings, FirewallState, tables::Firewall};
use netd_domain::Protocol::Tcp;

/// The first of two such pods in the topology.
const BRIDGED: usize = 0;
const ROUTED: usize = 5;
/// Of a connection, on a machine that is busy: what is refused is refused at once.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Ended(AtomicBool);

struct EndOf<'a>(&'a Ended);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Between two pods of a bridge, and two routed ones, no echo request is lost while `during`
/// runs again and again on the node, and a host port answers each new connection that
/// `ports_answer` asks for.
fn nothing_is_lost(
    ports_answer: bool,
    during: impl Fn(&mut Firewall, &FirewallState) + Send + 'static,
) {
    const ROUNDS: usize = 60;
    if !is_root() {
        return;
    }
    let ports = [(BRIDGED, port(Tcp, (None, 8080), SERVED))];
    let topology = &Topology::new(false, &ports);
    let ended = &Ended::default();
    thread::scope(|scope| {
        let flood = |from: usize, to: IpAddr| {
            let command = format!("ping -f -q -w 4 {to} | grep received");
            scope.spawn(move || topology.pods[from].netns.sh(&command))
        };
        let [bridged, routed] = [BRIDGED, ROUTED].map(|n| &topology.pods[n + 1]);
        let floods = [
            flood(BRIDGED, bridged.v4()),
            flood(BRIDGED, bridged.v6()),
            flood(ROUTED, routed.v4()),
        ];
        let connections = scope.spawn(move || {
            let mut answers = 0;
            while ports_answer && !ended.0.load(Ordering::Relaxed) {
                let refused = topology.outside.run(|| {
                    let made = TcpStream::connect_timeout(&at(NODE[0], 8080), PATIENCE);
                    made.err().map(|error| error.to_string())
                });
                assert_eq!(refused, None, "after {answers} connections to the host port");
                answers += 1;
            }
            assert!(answers > 0 || !ports_answer, "no connection was made");
        });
        // Also when a round panics.
        let end = EndOf(ended);
        topology.firewall(move |firewall, state| {
            for _ in 0..ROUNDS {
                during(firewall, state);
            }
        });
        drop(end);
        connections.join().unwrap();
        for flood in floods {
            let words = flood.join().unwrap();
            let mut numbers = words.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
            let (sent, received) = (numbers.next().unwrap(), numbers.next().unwrap());
            assert_eq!(sent - received, 0, "{words}");
        }
    });
}

fn with_another_network(state: &FirewallState) -> FirewallState {
    let mut more = state.clone();
    more.networks.push(Arc::new(network("more", None, &["10.77.0.0/24", "fd00:77::/64"])));
    more
}

#[test]
fn no_packet_is_lost_when_networks_come_and_go() {
    nothing_is_lost(true, |firewall, state| {
        firewall.replace(&with_another_network(state)).unwrap();
        firewall.replace(state).unwrap();
        assert!(firewall.intact(state).unwrap());
    });
}

#[test]
fn no_packet_is_lost_when_the_rules_are_those_of_another_release() {
    nothing_is_lost(true, |firewall, state| {
        let sh = |script: &str| Command::new("sh").args(["-ec", script]).status().unwrap();
        assert!(
            sh("nft add chain inet netd of_old; nft add rule inet netd guard jump of_old
                    nft add set inet netd old '{ type ipv4_addr; }'
                    nft add map inet netd older '{ type ipv4_addr : ipv4_addr; }'
                    nft add rule inet netd of_old ip daddr @old drop")
            .success()
        );
        firewall.replace(state).unwrap();
        assert!(firewall.intact(state).unwrap());
    });
}

#[test]
fn no_packet_is_lost_when_flushed_tables_are_made_again() {
    nothing_is_lost(false, |firewall, state| {
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        firewall.replace(state).unwrap();
    });
}

/// As a netd does that has just started.
fn make_tables() {
    let state = super::samples::mixed();
    let mut firewall = Firewall::new(FirewallSettings::default()).unwrap();
    firewall.replace(&state).unwrap();
    assert!(firewall.intact(&state).unwrap());
}

/// What a map of host ports should not hold is taken out of it; the map itself stays.
#[test]
fn maps_of_host_ports_stay_when_they_are_mended() {
    if !is_root() {
        return;
    }
    let netns = super::testbed::Netns::new();
    netns.run(make_tables);
    let maps = "nft -a list maps | sed 's/ # handle/\\n# handle/' | tr -s ',\t ' '\\n' | sort";
    let before = netns.sh(maps);
    for damage in [
        "nft add element inet netd ports4 '{ tcp . 1 : 10.88.0.9 . 80, sctp . 65535 : 1.2.3.4 . 0 }'",
        "nft add element inet netd ports6 '{ udp . 7 : fd00:88::9 . 80 }'",
        "nft add element inet netd bound4 '{ 10.9.9.9 . udp . 7 : 10.88.0.9 . 80 }'",
        "nft add element inet netd bound6 '{ ::1 . udp . 7 : fd00:88::9 . 80 }'",
        "nft flush map inet netd ports4; nft flush map inet netd ports6",
        "nft flush map inet netd ports4
         nft add element inet netd ports4 '{ tcp . 8080 : 10.88.0.9 . 80 }'",
    ] {
        netns.sh(damage);
        assert_ne!(netns.sh(maps), before, "{damage}: nothing is damaged");
        netns.run(make_tables);
        assert_eq!(netns.sh(maps), before, "{damage}");
    }
}

/// Whatever stands there under netd's name: afterwards it is as on an empty node.
#[test]
fn what_stands_in_the_way_is_replaced_altogether() {
    if !is_root() {
        return;
    }
    let netns = super::testbed::Netns::new();
    let list = "nft -s list ruleset";
    netns.run(make_tables);
    let empty_before = netns.sh(list);
    for before in [
        "nft add table inet netd '{ flags dormant; }'",
        "nft flush table inet netd; nft delete set inet netd peers4
         nft add set inet netd peers4 '{ type ipv4_addr; }'",
        "nft flush table inet netd; nft delete set inet netd pods4
         nft add set inet netd pods4 '{ type ipv4_addr; }'",
        "nft flush table inet netd; nft delete set inet netd pods6",
        "nft flush set inet netd pods4; nft add element inet netd pods4 '{ 10.0.0.0/8 }'",
        "nft flush set inet netd peers4
         nft add element inet netd peers4 '{ 10.0.0.0/8 . 10.0.0.0/8, 10.1.0.1 . 11.0.0.1-11.0.0.7 }'",
        "nft flush set inet netd peers6",
        "nft add counter inet netd mine; nft add rule inet netd forward counter name mine",
        "nft add chain inet netd from; nft add chain inet netd to
         nft add rule inet netd from jump to
         nft add map inet netd verdicts '{ type ipv4_addr : verdict; }'
         nft add element inet netd verdicts '{ 10.1.1.1 : jump from }'
         nft add rule inet netd forward ip saddr vmap @verdicts",
        "nft add element inet netd ports4 '{ 89 . 7 : 10.88.0.9 . 80 }'",
        "nft flush table inet netd; nft delete map inet netd ports4
         nft add map inet netd ports4 '{ type inet_proto . inet_service : ipv4_addr . inet_service; \
            size 2; }'",
        "nft flush table inet netd; nft delete map inet netd ports4
         nft add map inet netd ports4 '{ type ipv4_addr . ipv4_addr : ipv4_addr . inet_service; }'",
        "nft flush table inet netd; nft delete map inet netd ports4
         nft add map inet netd ports4 '{ type inet_service : ipv4_addr; }'",
        "nft add element inet netd own4 '{ 255.255.255.255, 0.0.0.0/8, 255.255.0.0/17 }'",
    ] {
        netns.sh(before);
        netns.run(make_tables);
        let now = netns.sh(&format!("nft delete counter inet netd mine 2>/dev/null || true; {list}"));
        let sorted = |text: &str| {
            let mut words: Vec<String> =
                text.split([',', '\n', '{', '}', '=']).map(|word| word.trim().into()).collect();
            words.sort_unstable();
            words
        };
        assert_eq!(sorted(&now), sorted(&empty_before), "{before}\n{now}");
    }
}
