//! Tables that are replaced under traffic.

use std::{process::Command, sync::Arc, thread};

use super::{samples::network, testbed::is_root, topology::Topology};
use crate::firewall::{FirewallSettings, FirewallState, tables::Firewall};

/// Between two routed pods of one network no echo request is lost while `during` runs again and
/// again on the node.
fn nothing_is_lost(during: impl Fn(&mut Firewall, &FirewallState) + Send + 'static) {
    const ROUNDS: usize = 60;
    if !is_root() {
        return;
    }
    let topology = &Topology::new(false, &[]);
    let (from, to) = (&topology.pods[5], topology.pods[6].v4());
    thread::scope(|scope| {
        let flood = scope.spawn(|| from.netns.sh(&format!("ping -f -q -w 4 {to} | grep received")));
        topology.firewall(move |firewall, state| {
            for _ in 0..ROUNDS {
                during(firewall, state);
            }
        });
        let words = flood.join().unwrap();
        let mut numbers = words.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (sent, received) = (numbers.next().unwrap(), numbers.next().unwrap());
        assert_eq!(sent - received, 0, "{words}");
    });
}

fn with_another_network(state: &FirewallState) -> FirewallState {
    let mut more = state.clone();
    more.networks.push(Arc::new(network("more", None, &["10.77.0.0/24", "fd00:77::/64"])));
    more
}

#[test]
fn no_packet_is_lost_when_networks_come_and_go() {
    nothing_is_lost(|firewall, state| {
        firewall.replace(&with_another_network(state)).unwrap();
        firewall.replace(state).unwrap();
        assert!(firewall.intact(state).unwrap());
    });
}

#[test]
fn no_packet_is_lost_when_the_rules_are_those_of_another_release() {
    nothing_is_lost(|firewall, state| {
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
    nothing_is_lost(|firewall, state| {
        assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success());
        firewall.replace(state).unwrap();
    });
}

/// Whatever stands there under netd's name: afterwards it is as on an empty node.
#[test]
fn what_stands_in_the_way_is_replaced_altogether() {
    if !is_root() {
        return;
    }
    let netns = super::testbed::Netns::new();
    let list = "nft -s list ruleset";
    let replace = || {
        let state = super::samples::mixed();
        let mut firewall = Firewall::new(FirewallSettings::default()).unwrap();
        firewall.replace(&state).unwrap();
        assert!(firewall.intact(&state).unwrap());
    };
    netns.run(replace);
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
        "nft add element inet netd own4 '{ 255.255.255.255, 0.0.0.0/8, 255.255.0.0/17 }'",
    ] {
        netns.sh(before);
        netns.run(replace);
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
