//! What the configuration leaves a node: how many subnets, from which range, or a fixed one.

use std::time::Duration;

use super::{
    super::Update,
    cluster::{Cluster, keys, settings},
    world::{Node, World, assert_disjoint, attrs, config, subnets},
};
use crate::flannel;

#[test]
fn several_subnets_are_taken_and_given_back() {
    let mut cluster = Cluster::settled(1);
    let first = cluster.only(0);
    cluster.nodes[0].reconciler.more();
    cluster.nodes[0].reconciler.more();
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 2, "one at a time");
    cluster.nodes[0].reconciler.more();
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 3);
    cluster.nodes[0].reconciler.give_back(&[first, subnets("10.5.99.0-24")]);
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 2);
    let name = flannel::key::name(&first);
    assert_eq!((cluster.lease_of(&name), cluster.owner_of(&name)), (None, None));
    let rest: Vec<_> = cluster.nodes[0].used.iter().copied().collect();
    cluster.nodes[0].reconciler.give_back(&rest);
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 1, "never without any");
}

#[test]
fn a_range_that_is_full_is_said_and_waited_for() {
    let mut cluster = Cluster::settled(8);
    cluster.nodes.push(Node::plain(9));
    cluster.rest();
    let problems = cluster.problems(8);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("all 8") && problems[0].contains("SubnetMax"), "{problems:?}");
    assert!(cluster.world.entries.contains_key(&keys().node("id-9")), "it is in the cluster");
    let revision = cluster.world.revision;
    cluster.wait(Duration::from_secs(3000));
    assert_eq!(cluster.world.revision, revision);
    cluster.nodes[3].reconciler.more();
    let gone = cluster.nodes.remove(0);
    cluster.world.end_lease(gone.reconciler.claims.lease.unwrap());
    cluster.rest();
    let had: usize = cluster.nodes.iter().map(|n| n.used.len()).sum();
    assert_eq!(had, 8, "who waited has what became free");
}

#[test]
fn a_fixed_subnet_is_that_or_none() {
    let mut cluster = Cluster::of(vec![Node::new(1, settings(Some("10.5.6.0-24"), &[]))]);
    cluster.flannel_has("10.5.6.0-25", &attrs(40));
    cluster.rest();
    assert!(cluster.used(0).is_empty());
    let problems = cluster.problems(0);
    assert!(
        problems[0].contains("192.0.2.40") && problems[0].contains("10.5.6.0-24"),
        "{problems:?}"
    );
    cluster.world.delete(&keys().lease("10.5.6.0-25"));
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.6.0-24"]);
    let only = cluster.only(0);
    cluster.nodes[0].reconciler.give_back(&[only]);
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.6.0-24"]);

    let mut outside = Cluster::of(vec![Node::new(1, settings(Some("10.9.6.0-24"), &[]))]);
    outside.rest();
    assert!(outside.problems(0)[0].contains("10.5.0.0/20"), "{:?}", outside.problems(0));
    // Outside of SubnetMin to SubnetMax is Kubernetes' business.
    let mut inside = Cluster::of(vec![Node::new(1, settings(Some("10.5.15.0-24"), &[]))]);
    inside.rest();
    assert_eq!(inside.used(0), ["10.5.15.0-24"]);
}

#[test]
fn another_configuration_is_followed_and_what_is_used_is_kept() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let other = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"host-gw"}}"#;
    cluster.world.put(&keys().config(), other, 0);
    cluster.rest();
    let names = cluster.used(0);
    assert!(names.len() == 2 && names.contains(&flannel::key::name(&had)), "{names:?}");
    assert!(names.iter().any(|n| n.starts_with("10.99.")), "{names:?}");
    let own = cluster.nodes[0].news.iter().rev().find_map(|u| match u {
        Update::Own(own) => Some(own.clone()),
        _ => None,
    });
    for own in own.unwrap() {
        assert_eq!(own.fits, own.subnets != had);
    }
    cluster.nodes[0].reconciler.give_back(&[had]);
    cluster.rest();
    assert!(flannel::key::name(&cluster.only(0)).starts_with("10.99."));
}

#[test]
fn dual_stack_nodes_share_no_half() {
    let mut cluster = Cluster::of((1..=4).map(Node::plain).collect());
    let both = r#"{"Network":"10.5.0.0/20","SubnetLen":24,"SubnetMin":"10.5.1.0",
        "SubnetMax":"10.5.4.0","EnableIPv6":true,"IPv6Network":"fc00:5::/62","IPv6SubnetLen":64,
        "IPv6SubnetMin":"fc00:5::","IPv6SubnetMax":"fc00:5:0:3::",
        "Backend":{"Type":"vxlan"}}"#;
    cluster.world.put(&keys().config(), both, 0);
    cluster.rest();
    assert_disjoint(&cluster.nodes);
    for n in 0..4 {
        let only = cluster.only(n);
        assert!(only.v4.is_some() && only.v6.is_some(), "{only:?}");
    }
}

#[test]
fn a_missing_or_broken_configuration_is_said_and_the_last_one_stays() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    for broken in [None, Some("{"), Some(r#"{"Network":"10.5.0.0/99"}"#)] {
        cluster.nodes[0].news.clear();
        match broken {
            Some(text) => cluster.world.put(&keys().config(), text, 0),
            None => cluster.world.delete(&keys().config()),
        }
        cluster.rest();
        let said = |u: &Update| matches!(u, Update::ConfigProblem(p) if p.contains("/config"));
        assert_eq!(cluster.nodes[0].news.iter().filter(|u| said(u)).count(), 1, "{broken:?}");
        // Also for a node that starts now.
        cluster.nodes[0].restart(4);
        cluster.rest();
        assert_eq!(cluster.only(0), had);
        let config = |u: &Update| matches!(u, Update::Config(_));
        assert!(cluster.nodes[0].news.iter().any(config), "it remembers");
    }
    let mut fresh =
        Cluster { world: World::default(), nodes: vec![Node::plain(1)], passed: Duration::ZERO };
    fresh.rest();
    assert!(fresh.used(0).is_empty());
    fresh.world.put(&keys().config(), &config(24), 0);
    fresh.rest();
    assert_eq!(fresh.used(0).len(), 1, "waited for");
}
