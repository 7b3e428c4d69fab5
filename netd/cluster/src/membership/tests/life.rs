//! A node's own lease from the first to its loss: starts, restarts, renewals, harm.

use std::time::Duration;

use super::{
    super::files::OwnFile,
    cluster::{Cluster, keys, value},
    world::{TTL, attrs},
};
use crate::{LeaseAttrs, flannel};

#[test]
fn a_new_node_takes_a_subnet_and_says_who_it_is() {
    let cluster = Cluster::settled(1);
    let name = flannel::key::name(&cluster.only(0));
    let (text, lease) = cluster.lease_of(&name).unwrap();
    assert_eq!(text, value(&attrs(1)), "flannel's JSON and nothing else");
    assert_eq!(cluster.owner_of(&name).unwrap(), "id-1");
    assert!(lease != 0 && cluster.nodes[0].reconciler.claims.lease == Some(lease));
    let bound = cluster.world.entries.values().filter(|e| e.lease == lease).count();
    assert_eq!(bound, 3, "lease, owner and node are bound to one lease");
    assert_eq!(cluster.nodes[0].commits, 2);
    let third: u8 = name.split('.').nth(2).unwrap().parse().unwrap();
    assert!((1..=8).contains(&third), "{name} is out of SubnetMin to SubnetMax");
}

#[test]
fn a_restart_keeps_everything_and_writes_nothing() {
    let mut cluster = Cluster::settled(2);
    let (had, revision) = (cluster.only(0), cluster.world.revision);
    cluster.nodes[0].restart(9);
    assert_eq!(cluster.only(0), had, "before the store has said a word");
    cluster.rest();
    assert_eq!((cluster.only(0), cluster.world.revision), (had, revision));
    // With the same id and nothing else: the store knows.
    cluster.nodes[0].disk = OwnFile::default();
    cluster.nodes[0].used.clear();
    cluster.nodes[0].restart(10);
    cluster.rest();
    assert_eq!((cluster.only(0), cluster.world.revision), (had, revision));
}

#[test]
fn renewals_write_nothing() {
    let mut cluster = Cluster::settled(3);
    let revision = cluster.world.revision;
    cluster.nodes.iter_mut().for_each(|n| n.news.clear());
    cluster.wait(TTL * 10);
    assert_eq!(cluster.world.revision, revision);
    assert!(cluster.nodes.iter().all(|n| n.news.is_empty()));
}

#[test]
fn after_a_long_absence_it_has_the_same_subnet_if_it_is_free() {
    let mut cluster = Cluster::settled(2);
    let had = cluster.only(0);
    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    let mut away = cluster.nodes.remove(0);
    cluster.world.end_lease(lease);
    cluster.rest();
    away.restart(5);
    cluster.nodes.insert(0, away);
    cluster.rest();
    assert_eq!(cluster.only(0), had);
    assert!(cluster.nodes[0].lost.is_empty());

    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    let mut away = cluster.nodes.remove(0);
    cluster.world.end_lease(lease);
    cluster.flannel_has(&flannel::key::name(&had), &attrs(99));
    away.restart(6);
    cluster.nodes.insert(0, away);
    cluster.rest();
    assert_eq!(cluster.nodes[0].lost, [had]);
    assert_ne!(cluster.only(0), had);
    let name = flannel::key::name(&had);
    assert_eq!(cluster.lease_of(&name).unwrap().0, value(&attrs(99)), "it is left alone");
    assert!(cluster.nodes[0].peers.contains_key(&name), "and it is a peer's");
}

#[test]
fn a_deleted_key_is_put_back() {
    let mut cluster = Cluster::settled(2);
    let had = cluster.only(0);
    let name = flannel::key::name(&had);
    for key in [keys().lease(&name), keys().owner(&name), keys().node("id-1")] {
        cluster.world.delete(&key);
        cluster.rest();
        assert!(cluster.world.entries.contains_key(&key), "{key}");
    }
    for key in [keys().lease(&name), keys().owner(&name)] {
        cluster.world.delete(&key);
    }
    cluster.rest();
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
    assert_eq!(cluster.owner_of(&name).unwrap(), "id-1");
    assert!(cluster.nodes[1].peers.contains_key(&name));
}

#[test]
fn who_keeps_deleting_is_met_at_a_measured_pace() {
    let mut cluster = Cluster::settled(1);
    let name = flannel::key::name(&cluster.only(0));
    let before = cluster.nodes[0].commits;
    for _ in 0..200 {
        cluster.world.delete(&keys().lease(&name));
        cluster.wait(Duration::from_millis(100));
    }
    let commits = cluster.nodes[0].commits - before;
    assert!((3..20).contains(&commits), "{commits} writes in 20 s");
    cluster.wait(Duration::from_secs(20));
    assert!(cluster.lease_of(&name).is_some());
}

#[test]
fn a_lease_that_another_program_wrote_is_lost() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let name = flannel::key::name(&had);
    cluster.flannel_has(&name, &attrs(50));
    cluster.rest();
    assert_eq!(cluster.nodes[0].lost, [had]);
    assert_ne!(cluster.only(0), had);
    assert_eq!(cluster.owner_of(&name), None, "the claim is withdrawn");
    assert_eq!(cluster.lease_of(&name).unwrap().0, value(&attrs(50)));
    assert!(cluster.nodes[0].peers.contains_key(&name));
}

#[test]
fn junk_in_a_lease_or_an_owner_key_is_written_over() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let name = flannel::key::name(&had);
    for key in [keys().lease(&name), keys().owner(&name), keys().node("id-1")] {
        cluster.world.put(&key, "\u{0}{", 0);
        cluster.wait(Duration::from_secs(60));
        assert_ne!(cluster.world.entries[&key].value, b"\0{", "{key}");
    }
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
    // This node's address with something else is this node's still.
    cluster.flannel_has(&name, &LeaseAttrs { data_v4: None, ..attrs(1) });
    cluster.wait(Duration::from_secs(60));
    assert_eq!(cluster.lease_of(&name).unwrap().0, value(&attrs(1)));
    assert_eq!((cluster.only(0), cluster.nodes[0].lost.len()), (had, 0));
}

#[test]
fn a_lease_that_ended_is_made_again_with_the_same_subnets() {
    let mut cluster = Cluster::settled(2);
    cluster.nodes[0].reconciler.more();
    cluster.rest();
    let had = cluster.used(0);
    assert_eq!(had.len(), 2);
    let lease = cluster.nodes[0].reconciler.claims.lease.unwrap();
    cluster.world.end_lease(lease);
    cluster.rest();
    assert_eq!((cluster.used(0), cluster.nodes[0].lost.len()), (had.clone(), 0));
    assert_ne!(cluster.nodes[0].reconciler.claims.lease, Some(lease));
    assert!(had.iter().all(|name| cluster.nodes[1].peers.contains_key(name)));
}

#[test]
fn what_changes_is_written_once_and_what_does_not_is_not() {
    let mut cluster = Cluster::settled(2);
    let name = flannel::key::name(&cluster.only(0));
    let (revision, commits) = (cluster.world.revision, cluster.nodes[0].commits);
    cluster.nodes[0].announce(attrs(1));
    cluster.rest();
    assert_eq!(cluster.world.revision, revision);
    cluster.nodes[0].announce(attrs(21));
    cluster.rest();
    assert_eq!(cluster.nodes[0].commits, commits + 2, "the lease, and the node's record");
    assert_eq!(cluster.nodes[1].peers[&name], attrs(21));
}

#[test]
fn announcing_a_backend_that_leaves_its_type_out_comes_to_rest() {
    let mut cluster = Cluster::settled(1);
    for kind in ["udp", "alloc"] {
        let attrs = LeaseAttrs { backend_type: Some(kind.into()), data_v4: None, ..attrs(1) };
        cluster.nodes[0].announce(attrs);
        cluster.rest();
        let revision = cluster.world.revision;
        cluster.wait(Duration::from_secs(600));
        assert_eq!(cluster.world.revision, revision, "{kind}");
    }
}
