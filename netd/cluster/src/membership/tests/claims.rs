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
    // Not in subnet.env.
    let mut cluster = Cluster::of(vec![Node::plain(1)]);
    cluster.flannel_has("10.5.3.0-24", &attrs(1));
    cluster.rest();
    assert_ne!(cluster.used(0), ["10.5.3.0-24"]);
    assert_eq!(cluster.owner_of("10.5.3.0-24"), None);
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
