//! Two machines with one node id: copies of a disk, and what must not be taken for one.

use std::time::Duration;

use super::{
    super::{IdentityUpdate, Update, records::NodeRecord},
    cluster::{Cluster, SOON, keys},
    world::{Node, World, assert_disjoint, attrs, clock},
};
use crate::flannel;

/// Longer than a machine at another address is waited for.
const LONG: Duration = Duration::from_secs(30);

fn replaced(node: &Node) -> Option<&str> {
    node.news.iter().rev().find_map(|update| match update {
        Update::Identity(IdentityUpdate::Replaced { who, .. }) => Some(who.as_str()),
        _ => None,
    })
}

fn record(world: &World, id: &str) -> NodeRecord {
    NodeRecord::parse(&world.entries[&keys().node(id)].value).unwrap()
}

#[test]
fn a_copy_beside_the_original_uses_nothing_of_it_and_takes_a_new_id() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let copy = cluster.nodes[0].copied(7);
    assert!(copy.used.is_empty(), "used before the store was asked");
    cluster.nodes.push(copy);
    for _ in 0..100 {
        cluster.wait(Duration::from_millis(100));
        assert_disjoint(&cluster.nodes);
    }
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
    assert_eq!((cluster.nodes[0].id.as_str(), replaced(&cluster.nodes[0])), ("id-1", None));
    assert_ne!(cluster.only(1), had);
    assert_ne!(cluster.nodes[1].id, "id-1");
    assert_eq!(replaced(&cluster.nodes[1]), Some("node node-id-1 at 192.0.2.1"));
    let name = flannel::key::name(&had);
    assert!(cluster.nodes[1].peers.contains_key(&name), "the original is a peer now");
    assert_eq!(cluster.owner_of(&name).unwrap(), "id-1");
    // Here the copy's name follows its id, and is written once.
    cluster.nodes.iter_mut().for_each(|node| node.restart(2));
    cluster.wait(LONG);
    // Both are started again, and nothing changes.
    let (revision, had) = (cluster.world.revision, [cluster.only(0), cluster.only(1)]);
    cluster.nodes.iter_mut().for_each(|node| node.restart(3));
    cluster.wait(LONG);
    assert_eq!((cluster.world.revision, [cluster.only(0), cluster.only(1)]), (revision, had));
}

#[test]
fn a_copy_under_another_name_is_one_too() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let mut copy = cluster.nodes[0].copied(7);
    copy.reconciler.claims.me.name = "another".into();
    cluster.nodes.push(copy);
    cluster.wait(LONG);
    assert_disjoint(&cluster.nodes);
    assert_eq!(cluster.only(0), had);
    assert!(replaced(&cluster.nodes[1]).is_some());
    assert_eq!(record(&cluster.world, "id-1").name, "node-id-1");
}

/// One of them has the id, and no address is used twice, whoever is there first.
#[test]
fn an_original_that_comes_back_beside_its_copy_is_the_later_one() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let copy = cluster.nodes[0].copied(7);
    let mut original = cluster.nodes.remove(0);
    cluster.nodes.push(copy);
    cluster.wait(LONG);
    assert_eq!(cluster.only(0), had, "nobody else answered");
    original.reboot(5);
    cluster.nodes.push(original);
    for _ in 0..100 {
        cluster.wait(Duration::from_millis(100));
        assert_disjoint(&cluster.nodes);
    }
    assert_eq!(cluster.only(0), had);
    assert_ne!(cluster.only(1), had);
    assert_eq!(replaced(&cluster.nodes[1]), Some("node node-id-1 at 192.0.2.7"));
}

#[test]
fn copies_that_start_together_end_with_an_id_each() {
    for copies in 2..5u8 {
        let mut cluster = Cluster::settled(1);
        let original = cluster.nodes.remove(0);
        cluster.nodes = (0..copies).map(|n| original.copied(10 + n)).collect();
        for _ in 0..200 {
            cluster.wait(Duration::from_millis(500));
            assert_disjoint(&cluster.nodes);
        }
        let ids: std::collections::BTreeSet<_> = cluster.nodes.iter().map(|n| &n.id).collect();
        assert_eq!(ids.len(), usize::from(copies));
        for n in 0..usize::from(copies) {
            cluster.only(n);
        }
    }
}

/// The whole cluster forgot the node, and then two copies of it start.
#[test]
fn copies_of_a_node_that_the_store_forgot_end_with_an_id_each() {
    let mut cluster = Cluster::settled(1);
    let original = cluster.nodes.remove(0);
    let lease = original.reconciler.claims.lease.unwrap();
    cluster.world.end_lease(lease);
    cluster.nodes = vec![original.copied(10), original.copied(11)];
    for _ in 0..100 {
        cluster.wait(Duration::from_millis(500));
        assert_disjoint(&cluster.nodes);
    }
    assert_ne!(cluster.nodes[0].id, cluster.nodes[1].id);
    assert_ne!(cluster.only(0), cluster.only(1));
}

#[test]
fn a_reboot_is_no_copy() {
    for another_address in [false, true] {
        let mut cluster = Cluster::settled(2);
        let had = cluster.only(0);
        cluster.nodes[0].reboot(5);
        if another_address {
            cluster.nodes[0].announce(attrs(44));
        }
        assert!(cluster.nodes[0].used.is_empty(), "used before the store was asked");
        cluster.wait(if another_address { LONG } else { Duration::from_secs(4) });
        assert_eq!((cluster.only(0), cluster.nodes[0].id.as_str()), (had, "id-1"));
        assert!(cluster.nodes[0].lost.is_empty() && replaced(&cluster.nodes[0]).is_none());
        // Again and again, also before the last contest was over.
        for seed in 0..5 {
            cluster.nodes[0].reboot(seed);
            cluster.wait(Duration::from_millis(300));
        }
        cluster.wait(LONG);
        assert_eq!((cluster.only(0), cluster.nodes[0].id.as_str()), (had, "id-1"));
    }
}

#[test]
fn netd_killed_and_started_again_is_no_copy() {
    let mut cluster = Cluster::settled(1);
    let (had, revision) = (cluster.only(0), cluster.world.revision);
    for seed in 0..5 {
        cluster.nodes[0].restart(seed);
        assert_eq!(cluster.only(0), had, "before the store has said a word");
        cluster.rest();
        assert_eq!((cluster.only(0), cluster.world.revision), (had, revision));
    }
}

/// The disk is set back to an earlier day: of the same boot, and of one before.
#[test]
fn a_restored_snapshot_is_no_copy() {
    for reboots in [false, true] {
        let mut cluster = Cluster::settled(1);
        let snapshot = cluster.nodes[0].disk.clone();
        let first = cluster.only(0);
        cluster.nodes[0].reconciler.more();
        cluster.wait(LONG);
        assert_eq!(cluster.used(0).len(), 2);
        cluster.nodes[0].disk = snapshot;
        cluster.nodes[0].used.clear();
        if reboots {
            cluster.nodes[0].reboot(5);
        } else {
            cluster.nodes[0].restart(5);
        }
        cluster.wait(LONG);
        assert_eq!(cluster.nodes[0].id, "id-1");
        assert!(cluster.nodes[0].used.contains(&first) && cluster.used(0).len() == 2);
    }
}

/// An old backup of etcd, from before the last reboot.
#[test]
fn a_store_set_back_to_an_earlier_boot_costs_no_subnet() {
    let mut cluster = Cluster::settled(2);
    let had = cluster.only(0);
    let before = record(&cluster.world, "id-1");
    cluster.nodes[0].reboot(5);
    cluster.wait(LONG);
    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    let text = serde_json::to_string(&before).unwrap();
    cluster.world.put(&keys().node("id-1"), &text, lease);
    cluster.wait(LONG);
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
    assert_ne!(record(&cluster.world, "id-1").incarnation, before.incarnation);
}

/// A record and a disk as netd 0.1 left them: netd was replaced under running pods.
#[test]
fn an_upgrade_goes_on_with_its_subnets_at_once() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let old = NodeRecord { incarnation: None, ..record(&cluster.world, "id-1") };
    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    cluster.nodes[0].disk.incarnation = None;
    cluster.nodes[0].restart(5);
    cluster.world.put(&keys().node("id-1"), &serde_json::to_string(&old).unwrap(), lease);
    assert_eq!(cluster.only(0), had, "before the store has said a word");
    cluster.wait(LONG);
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
    assert!(record(&cluster.world, "id-1").incarnation.is_some());
    assert!(replaced(&cluster.nodes[0]).is_none());
}

/// Without the store nobody can be asked: who is where it was goes on.
#[test]
fn a_reboot_without_the_store_goes_on_where_it_was() {
    for moved in [false, true] {
        let mut cluster = Cluster::settled(1);
        let had = cluster.only(0);
        cluster.nodes[0].reboot(5);
        if moved {
            cluster.nodes[0].announce(attrs(44));
        }
        let now = clock(cluster.passed);
        let node = &mut cluster.nodes[0];
        assert!(!node.decide(now) && node.used.is_empty());
        let wake = node.reconciler.wake_at(now).unwrap();
        let later = super::super::diff::Now { mono: wake, ..clock(cluster.passed + SOON) };
        node.decide(later);
        assert_eq!(node.used.contains(&had), !moved);
        // The store is back.
        cluster.passed += SOON;
        cluster.wait(LONG);
        assert_eq!((cluster.only(0), cluster.nodes[0].id.as_str()), (had, "id-1"));
    }
}

/// Whoever writes, the store is written at a measured pace.
#[test]
fn a_fight_over_any_key_has_a_measured_pace() {
    let mut cluster = Cluster::settled(1);
    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    let mut other = record(&cluster.world, "id-1");
    other.public_ip = Some("192.0.2.99".parse().unwrap());
    let before = cluster.nodes[0].commits;
    for _ in 0..200 {
        let text = serde_json::to_string(&other).unwrap();
        cluster.world.put(&keys().node("id-1"), &text, lease);
        cluster.wait(Duration::from_millis(100));
    }
    let commits = cluster.nodes[0].commits - before;
    assert!((3..20).contains(&commits), "{commits} writes of the node's record in 20 s");
    cluster.wait(Duration::from_secs(60));
    // Leases that end, and subnets that others take, each at once.
    let before = cluster.nodes[0].commits;
    for _ in 0..200 {
        if let Some(lease) = cluster.nodes[0].reconciler.claims.lease {
            cluster.world.end_lease(lease);
        }
        for name in cluster.used(0) {
            cluster.flannel_has(&name, &attrs(50));
        }
        cluster.wait(Duration::from_millis(100));
    }
    let commits = cluster.nodes[0].commits - before;
    assert!(commits < 100, "{commits} writes in 20 s");
}
