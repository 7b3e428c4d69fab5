//! What a node does as the API's Nodes change.

use std::time::Duration;

use netd_cluster::membership::{PeerUpdate, Update};
use serde_json::json;

use super::{VXLAN, World, facts, gone, node, vxlan_attrs};
use crate::{condition::GRACE, followed::News, own_file::OwnFile, peers_file};

fn peers(told: &[Update]) -> Vec<String> {
    let all = told.iter().filter_map(|update| match update {
        Update::Peers(peers) => Some(peers),
        _ => None,
    });
    let name = |update: &PeerUpdate| match update {
        PeerUpdate::Set { key, .. } => format!("+{key}"),
        PeerUpdate::Removed { key } => format!("-{key}"),
        PeerUpdate::Refused { key, .. } => format!("!{key}"),
    };
    all.flatten().map(name).collect()
}

#[test]
fn the_nodes_pod_cidr_is_told_once_it_is_on_disk() {
    let mut world = World::new(OwnFile::default());
    world.settle();
    assert!(matches!(&world.told[..], [Update::Own(own)] if own.is_empty()));
    world.reconciler.net_conf(Ok(VXLAN.as_bytes()), world.now);
    world.reconciler.ingest(News::Listed(vec![facts(&node("n1", "10.5.1.0/24", None))]), world.now);
    while let Some(update) = world.reconciler.pending.take_next() {
        world.told.push(update);
    }
    assert_eq!(world.own(), None, "told before it was on disk");
    let file = world.reconciler.next_save(world.now).unwrap();
    world.reconciler.saved(file, Err("full".into()));
    world.settle();
    assert_eq!(world.own(), None, "told though the disk failed");
    assert!(world.reconciler.status().disk_problem.is_some());
    world.pass(Duration::from_secs(20));
    assert_eq!(world.own().as_deref(), Some("10.5.1.0-24"));
    assert!(world.told.contains(&Update::Synced));
}

#[test]
fn nothing_is_announced_before_there_is_a_pod_cidr_and_then_only_once() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "", None)]);
    assert!(world.told_text().contains("--allocate-node-cidrs"));
    world.announce(vxlan_attrs());
    assert!(world.patches.is_empty());
    world.hear(News::Changed(Box::new(facts(&node("n1", "10.5.1.0/24", None)))));
    let [patch] = &world.patches[..] else { panic!("{:?}", world.patches) };
    let said = &patch["metadata"]["annotations"];
    assert_eq!(said["flannel.alpha.coreos.com/public-ip"], "192.0.2.1");
    assert!(patch.get("status").is_none());
    // The watch tells that it is so.
    let mut now = node("n1", "10.5.1.0/24", Some("192.0.2.1"));
    now["metadata"]["resourceVersion"] = json!("8");
    now["metadata"]["annotations"] = said.clone();
    world.hear(News::Changed(Box::new(facts(&now))));
    world.pass(Duration::from_secs(300));
    assert_eq!(world.patches.len(), 1);
    // Another program writes it again and again: it is answered more and more slowly.
    for version in 9..109 {
        let mut undone = now.clone();
        undone["metadata"]["resourceVersion"] = json!(version.to_string());
        undone["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] =
            json!("192.0.2.9");
        world.hear(News::Changed(Box::new(facts(&undone))));
        world.pass(Duration::from_secs(1));
    }
    assert!((4..20).contains(&world.patches.len()), "{}", world.patches.len());
}

#[test]
fn a_node_without_the_api_goes_on_with_what_it_remembers() {
    let world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    let mut later = World::new(world.disk);
    later.settle();
    assert_eq!(later.own().as_deref(), Some("10.5.1.0-24"));
    assert!(later.told.iter().any(|update| matches!(update, Update::Config(_))));
    later.hear(News::Failed("refused".into()));
    assert!(later.told_text().contains("Behind"));
    later.announce(vxlan_attrs());
    assert!(later.patches.is_empty(), "patched a Node of which nothing is known");
    later.list(&[node("n1", "10.5.1.0/24", None)]);
    assert!(later.told_text().contains("CaughtUp"));
    assert_eq!(later.patches.len(), 1);
}

#[test]
fn a_node_that_is_missing_keeps_its_subnet_until_another_one_has_it() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    world.hear(gone("n1"));
    assert_eq!(world.own().as_deref(), Some("10.5.1.0-24"));
    assert!(world.told_text().contains("there is no Node n1"));
    world.list(&[node("n2", "10.5.2.0/24", Some("192.0.2.2"))]);
    assert!(!world.told_text().contains("Lost"));
    // kubelet makes it again, as it was: all is well.
    world.told.clear();
    world.hear(News::Changed(Box::new(facts(&node("n1", "10.5.1.0/24", None)))));
    assert!(matches!(&world.told[..], [Update::Own(own)] if own.len() == 1), "{:?}", world.told);
    world.hear(gone("n1"));
    world.hear(News::Changed(Box::new(facts(&node("n3", "10.5.1.0/24", Some("192.0.2.3"))))));
    assert!(world.told.iter().any(|update| matches!(update, Update::Lost(_))));
    assert_eq!(world.own(), None);
    assert!(world.told_text().contains("Node n3 has its podCIDR"));
    world.hear(News::Changed(Box::new(facts(&node("n1", "10.5.8.0/24", None)))));
    assert_eq!(world.own().as_deref(), Some("10.5.8.0-24"));
}

#[test]
fn a_pod_cidr_outside_of_the_network_is_none() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.9.1.0/24", None)]);
    assert_eq!(world.own(), None);
    assert!(world.told_text().contains("10.9.1.0/24 is outside of 10.5.0.0/16"));
    // net-conf.json is mended.
    let wider = VXLAN.replace("10.5.0.0/16", "10.0.0.0/8");
    world.reconciler.net_conf(Ok(wider.as_bytes()), world.now);
    world.settle();
    assert_eq!(world.own().as_deref(), Some("10.9.1.0-24"));
}

/// In both orders: the subnets are told, and what is wrong with them stays told.
#[test]
fn what_is_wrong_with_one_family_is_told_after_the_subnet_of_the_other() {
    let mut world = World::new(OwnFile::default());
    let dual =
        VXLAN.replace("\"Backend", "\"EnableIPv6\":true,\"IPv6Network\":\"fd00:5::/48\",\"Backend");
    world.reconciler.net_conf(Ok(dual.as_bytes()), world.now);
    world.list(&[node("n1", "10.5.1.0/24", None)]);
    let place = |wanted: fn(&Update) -> bool| world.told.iter().rposition(wanted);
    let own = place(|update| matches!(update, Update::Own(own) if !own.is_empty()));
    let wrong = place(|update| matches!(update, Update::NoSubnet(why) if why.contains("no IPv6")));
    assert!(own.is_some() && wrong > own, "{:?}", world.told);
}

#[test]
fn of_two_nodes_with_one_pod_cidr_the_older_one_has_it() {
    let mut older = node("n9", "10.5.1.0/24", Some("192.0.2.9"));
    older["metadata"]["creationTimestamp"] = json!("2026-11-30T11:00:00Z");
    let own = node("n1", "10.5.1.0/24", None);
    let mut world = World::with(OwnFile::default(), &[own.clone(), older.clone()]);
    assert_eq!(world.own(), None);
    assert!(world.told_text().contains("Node n9, which is older than Node n1"));
    world.hear(gone("n9"));
    assert_eq!(world.own().as_deref(), Some("10.5.1.0-24"));
    older["metadata"]["creationTimestamp"] = json!("2026-11-30T13:00:00Z");
    world.told.clear();
    world.hear(News::Changed(Box::new(facts(&older))));
    assert_eq!(world.own(), None, "a younger one is no news of its own subnets");
}

/// As long as the keys are the other machine's the disk has the old name: a crash forgets nothing.
#[test]
fn another_name_is_another_node() {
    let first = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    let file = OwnFile { node: "n0".into(), ..first.disk };
    let mut world = World::new(file.clone());
    world.settle();
    assert!(matches!(world.told.first(), Some(Update::Identity(_))), "{:?}", world.told);
    assert!(world.told.iter().any(|update| matches!(update, Update::Lost(_))));
    world.reconciler.net_conf(Ok(VXLAN.as_bytes()), world.now);
    world.list(&[node("n0", "10.5.1.0/24", Some("192.0.2.1")), node("n1", "10.5.2.0/24", None)]);
    assert_eq!((world.own(), &world.disk), (None, &file), "before it has new keys");
    world.announce(vxlan_attrs());
    assert_eq!(world.own().as_deref(), Some("10.5.2.0-24"));
    assert_eq!(world.disk.node, "n1");
}

#[test]
fn a_patch_that_failed_is_told_until_it_is_done_or_no_longer_wanted() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    world.announce(vxlan_attrs());
    world.reconciler.patched(Err("forbidden".into()), world.now);
    world.settle();
    assert!(world.told_text().contains("forbidden"));
    // The next one is another error, and is told too.
    world.reconciler.patched(Err("no answer".into()), world.now);
    world.settle();
    assert!(world.told_text().contains("no answer"));
    // It was done all the same: the watch tells it.
    let mut done = node("n1", "10.5.1.0/24", Some("192.0.2.1"));
    done["metadata"]["resourceVersion"] = json!("8");
    done["metadata"]["annotations"] = world.patches[0]["metadata"]["annotations"].clone();
    world.hear(News::Changed(Box::new(facts(&done))));
    assert!(world.told_text().contains("CaughtUp"));
    assert!(world.reconciler.status().behind.is_none());
}

#[test]
fn a_late_answer_to_a_patch_is_no_node() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    let answer = facts(&node("n1", "10.5.1.0/24", None));
    world.hear(gone("n1"));
    world.reconciler.patched(Ok(answer.clone()), world.now);
    assert!(world.told_text().contains("there is no Node n1"));
    let mut again = node("n1", "10.5.7.0/24", None);
    again["metadata"]["uid"] = json!("another");
    world.hear(News::Changed(Box::new(facts(&again))));
    world.reconciler.patched(Ok(answer), world.now);
    world.settle();
    assert_eq!(world.own().as_deref(), Some("10.5.7.0-24"));
}

#[test]
fn others_nodes_come_and_go_at_once_and_heartbeats_tell_nothing() {
    let (n2, n3) = (node("n2", "10.5.2.0/24", Some("192.0.2.2")), node("n3", "10.5.3.0/24", None));
    let mut world =
        World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None), n2.clone(), n3]);
    assert_eq!(peers(&world.told), ["+n2"], "a Node without a pod network is nobody's peer");
    world.told.clear();
    for version in 8..30 {
        let mut beat = n2.clone();
        beat["metadata"]["resourceVersion"] = json!(version.to_string());
        beat["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
        world.hear(News::Changed(Box::new(facts(&beat))));
    }
    assert_eq!(world.told, []);
    let mut bad = n2.clone();
    bad["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"] = json!("junk");
    world.hear(News::Changed(Box::new(facts(&bad))));
    world.hear(News::Changed(Box::new(facts(&n2))));
    world.hear(gone("n2"));
    assert_eq!(peers(&world.told), ["!n2", "+n2", "-n2"]);
    // It gives up its pod network.
    world.hear(News::Changed(Box::new(facts(&n2))));
    world.hear(News::Changed(Box::new(facts(&node("n2", "10.5.2.0/24", None)))));
    assert_eq!(peers(&world.told)[3..], ["+n2", "-n2"]);
}

/// The API may have been restored from an older copy: kubelets make their Nodes again.
#[test]
fn nodes_that_vanish_together_are_held_for_a_while() {
    let own = node("n1", "10.5.1.0/24", None);
    let other =
        |n: u8| node(&format!("m{n}"), &format!("10.5.{n}.0/24"), Some(&format!("192.0.2.{n}")));
    let all: Vec<_> = [own.clone()].into_iter().chain((10..20).map(other)).collect();
    let mut world = World::with(OwnFile::default(), &all);
    world.told.clear();
    world.list(&[own.clone(), other(10)]);
    assert_eq!(peers(&world.told), Vec::<String>::new());
    assert_eq!(world.reconciler.status().held_back, 9);
    world.hear(News::Changed(Box::new(facts(&other(11)))));
    world.pass(Duration::from_secs(31));
    assert_eq!(peers(&world.told).len(), 8);
    // One of many is believed.
    world.told.clear();
    world.list(&all);
    world.list(&all[..10]);
    assert_eq!(peers(&world.told).last().unwrap(), "-m19");
}

#[test]
fn vtep_macs_are_the_nodes_own_annotation_and_the_others() {
    let mut world = World::new(OwnFile::default());
    let family = netd_cluster::Family::V4;
    assert!(world.reconciler.vteps(family).is_none(), "before the list");
    world.reconciler.net_conf(Ok(VXLAN.as_bytes()), world.now);
    let mut other = node("n2", "10.5.2.0/24", Some("192.0.2.2"));
    let mac = r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:02"}"#;
    other["metadata"]["annotations"]["flannel.alpha.coreos.com/backend-data"] = json!(mac);
    world.list(&[node("n1", "10.5.1.0/24", Some("192.0.2.1")), other]);
    let claims = world.reconciler.vteps(family).unwrap();
    assert_eq!(claims.left, ["02:00:00:00:00:09".parse().unwrap()]);
    assert_eq!(claims.others, ["02:00:00:00:00:02".parse().unwrap()].into());
}

#[test]
fn the_condition_waits_for_the_grace_and_goes_with_the_annotations() {
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None)]);
    world.reconciler.readiness(Err("overlay: no device".into()), world.now);
    world.settle();
    assert!(world.patches.is_empty());
    let due = world.reconciler.wake_at(world.now).unwrap();
    assert_eq!(due, world.now.mono + GRACE);
    world.pass(GRACE);
    assert_eq!(world.patches[0]["status"]["conditions"][0]["status"], "True");
    world.reconciler.readiness(Ok(()), world.now);
    world.announce(vxlan_attrs());
    world.pass(Duration::from_secs(2));
    let last = world.patches.last().unwrap();
    assert_eq!(last["status"]["conditions"][0]["status"], "False");
    assert!(last["metadata"]["annotations"].is_object());
}

#[test]
fn what_is_remembered_is_read_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let n2 = node("n2", "10.5.2.0/24", Some("192.0.2.2"));
    let mut world = World::with(OwnFile::default(), &[node("n1", "10.5.1.0/24", None), n2]);
    world.announce(vxlan_attrs());
    world.disk.write(dir.path()).unwrap();
    assert_eq!(OwnFile::read(dir.path()), world.disk);
    let known = world.reconciler.peers.known();
    assert_eq!(known.len(), 1);
    peers_file::save(dir.path(), known).unwrap();
    assert_eq!(peers_file::read(dir.path()), *known);
    for junk in ["", "{", "null", r#"{"version":2,"nodes":{}}"#] {
        std::fs::write(dir.path().join("kubernetes.json"), junk).unwrap();
        std::fs::write(dir.path().join("kubernetes-nodes.json"), junk).unwrap();
        assert_eq!(OwnFile::read(dir.path()), OwnFile::default());
        assert!(peers_file::read(dir.path()).is_empty());
    }
}
