//! What is known of the others, a case each.

use std::time::Duration;

use super::{
    super::{Update, view::Part},
    cluster::{SOON, keys},
    world::{HOLD, Node, World, attrs, clock, config, rest},
};
use crate::flannel;

/// A node, and `peers` flannel nodes with 10.5.101.0/24 and so on.
fn cluster(peers: u8) -> (World, Vec<Node>) {
    let mut world = World::default();
    world.put(&keys().config(), &config(24), 0);
    for n in 0..peers {
        let lease = world.grant();
        world.put(&keys().lease(&name(n)), &value(100 + n), lease);
    }
    let mut nodes = vec![Node::plain(1)];
    rest(&mut world, &mut nodes, Duration::ZERO, SOON);
    nodes[0].news.clear();
    (world, nodes)
}

fn name(n: u8) -> String {
    format!("10.5.{}.0-24", 100 + n)
}

fn value(ip: u8) -> String {
    flannel::value::format(&attrs(ip))
}

/// Flannel's renewal: another etcd lease, the same value.
fn renew(world: &mut World, n: u8) {
    let lease = world.grant();
    world.put(&keys().lease(&name(n)), &value(100 + n), lease);
}

#[test]
fn a_renewal_is_no_news_and_a_change_is() {
    let (mut world, mut nodes) = cluster(5);
    (0..5).for_each(|n| renew(&mut world, n));
    rest(&mut world, &mut nodes, SOON, SOON);
    assert!(nodes[0].news.is_empty(), "{:?}", nodes[0].news);
    let commits = nodes[0].commits;
    world.put(&keys().lease(&name(2)), &value(55), 1);
    rest(&mut world, &mut nodes, SOON * 2, SOON);
    assert_eq!(nodes[0].news.len(), 1);
    assert_eq!(nodes[0].peers[&name(2)], attrs(55));
    assert_eq!(nodes[0].commits, commits);
}

#[test]
fn a_list_after_a_gap_tells_the_difference_only() {
    let (mut world, mut nodes) = cluster(6);
    renew(&mut world, 0);
    world.put(&keys().lease(&name(1)), &value(56), 1);
    world.delete(&keys().lease(&name(2)));
    world.put(&keys().lease(&name(9)), &value(109), 1);
    nodes[0].list(&world, Part::Flannel, clock(SOON * 2));
    let Some(Update::Peers(updates)) = nodes[0].news.first() else { panic!("no news") };
    assert_eq!((nodes[0].news.len(), updates.len()), (1, 3), "{updates:?}");
    assert_eq!(nodes[0].peers[&name(1)], attrs(56));
    assert!(!nodes[0].peers.contains_key(&name(2)) && nodes[0].peers.contains_key(&name(9)));
    nodes[0].news.clear();
    nodes[0].list(&world, Part::Flannel, clock(SOON * 2));
    nodes[0].list(&world, Part::Cluster, clock(SOON * 2));
    assert!(nodes[0].news.is_empty());
}

#[test]
fn what_cannot_be_read_removes_nothing() {
    let (mut world, mut nodes) = cluster(3);
    world.put(&keys().lease(&name(1)), "{\"PublicIP\":17}", 1);
    world.put(&keys().lease("10.5.7.0-77"), &value(9), 1);
    world.put(&keys().lease("\u{7}"), "", 1);
    rest(&mut world, &mut nodes, SOON, SOON);
    let known: Vec<_> = nodes[0].peers.keys().cloned().collect();
    assert_eq!(known, [name(0), name(1), name(2)]);
    assert_eq!(nodes[0].peers[&name(1)], attrs(101), "as it was");
    assert_eq!(nodes[0].refused.len(), 3, "{:?}", nodes[0].refused);
    assert!(nodes[0].refused[&name(1)].contains("PublicIP"), "{:?}", nodes[0].refused);
    assert_eq!(nodes[0].reconciler.peers.refused().len(), 3);
    nodes[0].news.clear();
    nodes[0].list(&world, Part::Flannel, clock(SOON * 3));
    assert!(nodes[0].news.is_empty(), "told once");
    // Read again, as it was before: the refusal is taken back.
    renew(&mut world, 1);
    world.delete(&keys().lease("\u{7}"));
    rest(&mut world, &mut nodes, SOON * 3, SOON);
    assert_eq!(nodes[0].refused.keys().collect::<Vec<_>>(), ["10.5.7.0-77"]);
    // Unreadable and then gone: gone.
    world.put(&keys().lease(&name(2)), "", 1);
    rest(&mut world, &mut nodes, SOON * 4, SOON);
    world.delete(&keys().lease(&name(2)));
    rest(&mut world, &mut nodes, SOON * 5, SOON);
    assert!(!nodes[0].peers.contains_key(&name(2)) && !nodes[0].refused.contains_key(&name(2)));
}

#[test]
fn a_dead_peer_is_removed_at_once_also_if_it_was_the_only_one() {
    for peers in [1, 2, 5] {
        let (mut world, mut nodes) = cluster(peers);
        world.end_lease(1);
        rest(&mut world, &mut nodes, SOON, Duration::from_millis(1));
        assert_eq!(nodes[0].peers.len(), usize::from(peers) - 1);
    }
}

#[test]
fn an_emptied_store_takes_no_living_peer() {
    let mut world = World::default();
    world.put(&keys().config(), &config(24), 0);
    let mut nodes: Vec<_> = (1..=5).map(Node::plain).collect();
    rest(&mut world, &mut nodes, Duration::ZERO, SOON);
    let had: Vec<_> = nodes.iter().map(|n| n.used.clone()).collect();
    let all: Vec<_> = world.entries.keys().cloned().collect();
    nodes.iter_mut().for_each(|n| n.news.clear());
    // As `etcdctl del --prefix ""`, seen by watching and by listing.
    all.iter().filter(|k| !k.ends_with("/config")).for_each(|k| world.delete(k));
    let now = clock(SOON);
    nodes[0].list(&world, Part::Flannel, now);
    nodes[0].list(&world, Part::Cluster, now);
    rest(&mut world, &mut nodes, SOON, SOON);
    for (node, had) in nodes.iter().zip(&had) {
        assert_eq!(&node.used, had);
        assert_eq!(node.peers.len(), 4);
        assert!(node.lost.is_empty());
    }
    let removed = |u: &Update| matches!(u, Update::Peers(p) if p.iter().any(|u| matches!(u, super::super::PeerUpdate::Removed { .. })));
    assert!(!nodes[0].news.iter().any(removed), "{:?}", nodes[0].news);
}

/// One of many is believed to be dead, unless this node was cut off itself.
#[test]
fn what_ended_while_the_node_was_cut_off_stays_for_a_while() {
    for cut_off in [false, true] {
        let (mut world, mut nodes) = cluster(6);
        if cut_off {
            nodes[0].fails(Part::Flannel, clock(SOON));
        }
        world.delete(&keys().lease(&name(2)));
        nodes[0].list(&world, Part::Flannel, clock(SOON));
        assert_eq!(nodes[0].peers.contains_key(&name(2)), cut_off);
        // Also what is heard of a little later.
        world.delete(&keys().lease(&name(3)));
        let passed = rest(&mut world, &mut nodes, SOON, SOON);
        assert_eq!(nodes[0].peers.contains_key(&name(3)), cut_off);
        rest(&mut world, &mut nodes, passed, HOLD);
        assert_eq!(nodes[0].peers.len(), 4);
    }
}

#[test]
fn peers_that_do_not_come_back_are_removed_after_a_while() {
    let (mut world, mut nodes) = cluster(6);
    let gone: Vec<_> = (0..5).map(|n| keys().lease(&name(n))).collect();
    gone.iter().for_each(|key| world.delete(key));
    nodes[0].list(&world, Part::Flannel, clock(SOON));
    let passed = rest(&mut world, &mut nodes, SOON, HOLD - Duration::from_secs(1));
    assert_eq!((nodes[0].peers.len(), nodes[0].reconciler.peers.held()), (6, 5));
    renew(&mut world, 3);
    rest(&mut world, &mut nodes, passed, Duration::from_secs(2));
    let left: Vec<_> = nodes[0].peers.keys().cloned().collect();
    assert_eq!((left, nodes[0].reconciler.peers.held()), (vec![name(3), name(5)], 0));
}

#[test]
fn a_store_that_is_away_is_said_and_changes_nothing() {
    let (mut world, mut nodes) = cluster(3);
    let (peers, used) = (nodes[0].peers.clone(), nodes[0].used.clone());
    nodes[0].fails(Part::Flannel, clock(SOON));
    nodes[0].fails(Part::Cluster, clock(SOON * 2));
    nodes[0].fails(Part::Flannel, clock(SOON * 3));
    let since = clock(SOON).unix;
    assert_eq!(nodes[0].news, [Update::Behind { since, why: "away".into() }]);
    assert_eq!(nodes[0].reconciler.behind().unwrap().0, since);
    assert_eq!((&nodes[0].peers, &nodes[0].used), (&peers, &used));
    // Wishes wait.
    nodes[0].announce(attrs(66));
    nodes[0].news.clear();
    nodes[0].list(&world, Part::Flannel, clock(SOON * 4));
    assert!(nodes[0].news.is_empty(), "one part is still away");
    nodes[0].list(&world, Part::Cluster, clock(SOON * 4));
    assert_eq!(nodes[0].news, [Update::CaughtUp]);
    rest(&mut world, &mut nodes, SOON * 4, SOON);
    let own = flannel::key::name(used.first().unwrap());
    let lease = &world.entries[&keys().lease(&own)];
    assert_eq!(flannel::value::parse(&lease.value).unwrap(), attrs(66));
}
