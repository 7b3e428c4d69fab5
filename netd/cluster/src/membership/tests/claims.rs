//! Which leases of the store are this node's to take: flannel's own of before, those that
//! `subnet.env` names, reservations.

use std::time::Duration;

use super::{
    super::Update,
    cluster::{Cluster, keys, settings, value},
    world::{Node, attrs},
};
use crate::{LeaseAttrs, flannel};

#[test]
fn flannels_own_lease_is_taken_over_if_subnet_env_names_it() {
    let mut cluster = Cluster::of(vec![Node::new(1, settings(None, &["10.5.3.0-24"]))]);
    let old = LeaseAttrs { data_v4: None, ..attrs(1) };
    cluster.flannel_has("10.5.3.0-24", &old);
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.3.0-24"]);
    let (text, lease) = cluster.lease_of("10.5.3.0-24").unwrap();
    assert_eq!((text, Some(lease)), (value(&attrs(1)), cluster.nodes[0].reconciler.claims.lease));
    assert!(cluster.nodes[0].peers.is_empty());
    let told = |u: &Update| matches!(u, Update::Peers(_));
    assert!(!cluster.nodes[0].news.iter().any(told), "it never was a peer");
}

#[test]
fn an_equal_address_alone_is_no_claim() {
    // In subnet.env, but another netd node owns it.
    let mut twin = Cluster::settled(1);
    let had = flannel::key::name(&twin.only(0));
    let mut second = Node::new(2, settings(None, &[&had]));
    second.announce(attrs(1));
    twin.nodes.push(second);
    twin.rest();
    assert_eq!(twin.used(0), std::slice::from_ref(&had));
    assert_ne!(twin.used(1), [had]);
}

/// A reboot took `subnet.env` with it, and flannel's device; also where nothing else is free.
#[test]
fn flannels_own_lease_is_taken_over_after_a_reboot_too() {
    for full in [false, true] {
        let mut cluster = Cluster::of(vec![Node::plain(1)]);
        let others = (1..=8).filter(|third| full && *third != 3);
        for third in others {
            cluster.flannel_has(&format!("10.5.{third}.0-24"), &attrs(100 + third));
        }
        let old = attrs_with_mac(1, 0xee);
        cluster.flannel_has("10.5.3.0-24", &old);
        cluster.wait(Duration::from_secs(60));
        assert_eq!(cluster.used(0), ["10.5.3.0-24"]);
        assert_eq!(cluster.lease_of("10.5.3.0-24").unwrap().0, value(&attrs(1)));
        assert_eq!(cluster.problems(0), [""; 0]);
    }
}

fn attrs_with_mac(ip: u8, mac: u8) -> LeaseAttrs {
    LeaseAttrs { data_v4: attrs(mac).data_v4, ..attrs(ip) }
}

/// The node is dead, its address goes to a machine with flannel, which takes the lease that
/// names its address; then the node is back. However it comes back, the lease is flannel's.
#[test]
fn an_address_that_went_to_a_flannel_node_takes_its_lease_along() {
    for (reboots, moved) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut cluster = Cluster::settled(1);
        let name = flannel::key::name(&cluster.only(0));
        let flannels = attrs_with_mac(1, 0xee);
        let mut node = cluster.nodes.remove(0);
        cluster.flannel_has(&name, &flannels);
        if reboots {
            node.reboot(5);
        } else {
            node.restart(5);
        }
        if moved {
            node.announce(attrs(44));
        }
        cluster.nodes.push(node);
        cluster.wait(Duration::from_secs(60));
        assert_eq!(cluster.lease_of(&name).unwrap().0, value(&flannels));
        assert_ne!(cluster.used(0), std::slice::from_ref(&name));
        // And it does not take it back later.
        cluster.nodes[0].restart(6);
        cluster.wait(Duration::from_secs(600));
        assert_eq!(cluster.lease_of(&name).unwrap().0, value(&flannels));
        assert_eq!(cluster.nodes[0].used.len(), 1);
    }
}

const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}"#;

fn dual(ip: u8) -> LeaseAttrs {
    let v4 = attrs(ip);
    let public_v6 = Some(format!("2001:db8::{ip}").parse().unwrap());
    LeaseAttrs { public_v6, data_v6: v4.data_v4.clone(), ..v4 }
}

/// Both families over IPv4.
fn without_v6(ip: u8) -> LeaseAttrs {
    LeaseAttrs { public_v6: None, ..dual(ip) }
}

/// flanneld hangs for good on an IPv6 subnet without `PublicIPv6`.
#[test]
fn nothing_is_published_that_flannel_cannot_read() {
    for with_flannel in [true, false] {
        let mut cluster = Cluster::of(vec![Node::plain(1), Node::plain(2)]);
        cluster.world.put(&keys().config(), DUAL, 0);
        if with_flannel {
            cluster.flannel_has("10.5.77.0-24&fd00:5:0:77::-64", &dual(77));
        }
        // One loses its IPv6 address later, the other one never had any.
        cluster.nodes[0].announce(dual(1));
        cluster.nodes[1].announce(without_v6(2));
        cluster.rest();
        let unreadable = |n: &Node| {
            let told = n.news.iter().rev().find_map(|update| match update {
                Update::Unreadable(why) => Some(why.is_some()),
                _ => None,
            });
            told.unwrap_or(false)
        };
        assert_eq!(cluster.used(1).is_empty(), with_flannel);
        assert_eq!(unreadable(&cluster.nodes[1]), with_flannel);
        let name = flannel::key::name(&cluster.only(0));
        cluster.nodes[0].announce(without_v6(1));
        cluster.rest();
        let published = cluster.lease_of(&name).unwrap().0;
        let expected = if with_flannel { dual(1) } else { without_v6(1) };
        assert_eq!(published, value(&expected));
        assert_eq!(unreadable(&cluster.nodes[0]), with_flannel);
        // The IPv4 address changes meanwhile; a restart in between.
        cluster.nodes[0].announce(without_v6(9));
        cluster.rest();
        cluster.nodes[0].restart(4);
        cluster.rest();
        let expected = if with_flannel {
            LeaseAttrs { public_v6: dual(1).public_v6, data_v6: dual(1).data_v6, ..without_v6(9) }
        } else {
            without_v6(9)
        };
        assert_eq!(cluster.lease_of(&name).unwrap().0, value(&expected));
        for n in 0..2 {
            cluster.nodes[n].announce(dual(10 + n as u8));
        }
        cluster.rest();
        assert!(!unreadable(&cluster.nodes[0]) && !unreadable(&cluster.nodes[1]));
        assert_eq!(cluster.used(1).len(), 1);
        let bad = cluster.world.entries.iter().filter(|(key, entry)| {
            key.contains("&fd00") && String::from_utf8_lossy(&entry.value).contains("null")
        });
        assert_eq!(bad.count(), 0);
    }
}

#[test]
fn subnet_env_is_preferred_where_it_is_free() {
    let mut cluster = Cluster::of(vec![Node::new(1, settings(None, &["10.5.7.0-24"]))]);
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.7.0-24"]);
}

#[test]
fn a_reservation_for_this_node_is_used_and_not_touched() {
    let mut cluster = Cluster::of(vec![Node::plain(1), Node::plain(2)]);
    cluster.world.put(&keys().lease("10.5.4.0-24"), &value(&attrs(1)), 0);
    cluster.world.put(&keys().lease("10.5.5.0-24"), &value(&attrs(77)), 0);
    let before = cluster.world.entries[&keys().lease("10.5.4.0-24")].clone();
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.4.0-24"]);
    assert_eq!(cluster.world.entries[&keys().lease("10.5.4.0-24")], before);
    assert_ne!(cluster.used(1), ["10.5.5.0-24"]);
    // It lasts beyond the node's lease, and what changes is written without one.
    cluster.nodes[0].announce(attrs(11));
    cluster.rest();
    assert_eq!(cluster.lease_of("10.5.4.0-24"), Some((value(&attrs(11)), 0)));
    // Given back, it stays a reservation: with the node's address, so it is taken again.
    let only = cluster.only(0);
    cluster.nodes[0].reconciler.give_back(&[only]);
    cluster.rest();
    assert_eq!(cluster.lease_of("10.5.4.0-24"), Some((value(&attrs(11)), 0)));
    assert_eq!(cluster.used(0), ["10.5.4.0-24"]);
}

#[test]
fn a_reservation_is_never_another_nodes() {
    let mut cluster = Cluster::of((1..=6).map(Node::plain).collect());
    for third in [1, 8] {
        let name = format!("10.5.{third}.0-24");
        cluster.world.put(&keys().lease(&name), &value(&attrs(77)), 0);
    }
    cluster.rest();
    let mut all: Vec<_> = (0..6).flat_map(|n| cluster.used(n)).collect();
    all.sort();
    let expected: Vec<_> = (2..=7).map(|third| format!("10.5.{third}.0-24")).collect();
    assert_eq!(all, expected);
}

#[test]
fn a_reservation_that_was_given_back_is_known_like_anybodys() {
    let mut cluster = Cluster::settled(1);
    cluster.nodes[0].reconciler.more();
    cluster.rest();
    let had: Vec<_> = cluster.nodes[0].used.iter().copied().collect();
    let name = flannel::key::name(&had[0]);
    // Whoever wrote it bound it to no lease: a reservation from now on.
    cluster.world.put(&keys().lease(&name), "{", 0);
    cluster.wait(Duration::from_secs(60));
    cluster.nodes[0].reconciler.give_back(&had[..1]);
    cluster.wait(Duration::from_secs(60));
    assert_eq!((cluster.owner_of(&name), cluster.used(0).len()), (None, 1));
    assert!(cluster.nodes[0].peers.contains_key(&name));
}
