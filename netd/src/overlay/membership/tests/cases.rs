//! This node's own leases, a case each.

use std::time::Duration;

use super::{
    super::{Update, core::Settings, files::OwnFile, records::OwnerRecord},
    world::{Fate, Node, TTL, World, attrs, clock, config, rest, subnets},
};
use crate::{
    overlay::{LeaseAttrs, Subnets, flannel},
    store::keys::ClusterKeys,
};

const SOON: Duration = Duration::from_secs(10);

struct Cluster {
    world: World,
    nodes: Vec<Node>,
    passed: Duration,
}

fn keys() -> ClusterKeys {
    ClusterKeys::default()
}

fn settings(fixed: Option<&str>, preferred: &[&str]) -> Settings {
    let preferred = preferred.iter().map(|name| subnets(name)).collect();
    Settings { ttl: TTL, fixed: fixed.map(subnets), preferred }
}

fn value(attrs: &LeaseAttrs) -> String {
    flannel::value::format(attrs)
}

impl Cluster {
    fn of(nodes: Vec<Node>) -> Self {
        let mut world = World::default();
        world.put(&keys().config(), &config(24), 0);
        Self { world, nodes, passed: Duration::ZERO }
    }

    /// One that has come to rest.
    fn settled(nodes: u8) -> Self {
        let mut cluster = Self::of((1..=nodes).map(Node::plain).collect());
        cluster.rest();
        cluster
    }

    fn rest(&mut self) {
        self.wait(SOON);
    }

    fn wait(&mut self, time: Duration) {
        self.passed = rest(&mut self.world, &mut self.nodes, self.passed, time);
    }

    fn used(&self, n: usize) -> Vec<String> {
        self.nodes[n].used.iter().map(flannel::key::name).collect()
    }

    fn only(&self, n: usize) -> Subnets {
        assert_eq!(self.nodes[n].used.len(), 1, "{:?}", self.used(n));
        *self.nodes[n].used.first().unwrap()
    }

    fn lease_of(&self, name: &str) -> Option<(String, i64)> {
        let entry = self.world.entries.get(&keys().lease(name))?;
        Some((String::from_utf8(entry.value.clone()).unwrap(), entry.lease))
    }

    fn owner_of(&self, name: &str) -> Option<String> {
        let entry = self.world.entries.get(&keys().owner(name))?;
        Some(OwnerRecord::parse(&entry.value).unwrap().id)
    }

    fn flannel_has(&mut self, name: &str, attrs: &LeaseAttrs) {
        let lease = self.world.grant();
        self.world.put(&keys().lease(name), &value(attrs), lease);
    }

    fn problems(&self, n: usize) -> Vec<String> {
        let problem = |u: &Update| match u {
            Update::NoSubnet(why) => Some(why.clone()),
            _ => None,
        };
        self.nodes[n].news.iter().filter_map(problem).collect()
    }
}

#[test]
fn a_new_node_takes_a_subnet_and_says_who_it_is() {
    let cluster = Cluster::settled(1);
    let name = flannel::key::name(&cluster.only(0));
    let (text, lease) = cluster.lease_of(&name).unwrap();
    assert_eq!(text, value(&attrs(1)), "flannel's JSON and nothing else");
    assert_eq!(cluster.owner_of(&name).unwrap(), "id-1");
    assert!(lease != 0 && cluster.nodes[0].core.own.lease == Some(lease));
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
    let lease = cluster.nodes[0].core.own.lease.unwrap();
    let mut away = cluster.nodes.remove(0);
    cluster.world.end_lease(lease);
    cluster.rest();
    away.restart(5);
    cluster.nodes.insert(0, away);
    cluster.rest();
    assert_eq!(cluster.only(0), had);
    assert!(cluster.nodes[0].lost.is_empty());

    let lease = cluster.nodes[0].core.own.lease.unwrap();
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
fn flannels_own_lease_is_taken_over_if_subnet_env_names_it() {
    let mut cluster = Cluster::of(vec![Node::new(1, settings(None, &["10.5.3.0-24"]))]);
    let old = LeaseAttrs { data_v4: None, ..attrs(1) };
    cluster.flannel_has("10.5.3.0-24", &old);
    cluster.rest();
    assert_eq!(cluster.used(0), ["10.5.3.0-24"]);
    let (text, lease) = cluster.lease_of("10.5.3.0-24").unwrap();
    assert_eq!((text, Some(lease)), (value(&attrs(1)), cluster.nodes[0].core.own.lease));
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
    cluster.nodes[0].core.give_back(&[only]);
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
fn a_lease_that_somebody_else_wrote_is_lost() {
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
    cluster.nodes[0].core.more();
    cluster.rest();
    let had = cluster.used(0);
    assert_eq!(had.len(), 2);
    let lease = cluster.nodes[0].core.own.lease.unwrap();
    cluster.world.end_lease(lease);
    cluster.rest();
    assert_eq!((cluster.used(0), cluster.nodes[0].lost.len()), (had.clone(), 0));
    assert_ne!(cluster.nodes[0].core.own.lease, Some(lease));
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

#[test]
fn several_subnets_are_taken_and_given_back() {
    let mut cluster = Cluster::settled(1);
    let first = cluster.only(0);
    cluster.nodes[0].core.more();
    cluster.nodes[0].core.more();
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 2, "one at a time");
    cluster.nodes[0].core.more();
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 3);
    cluster.nodes[0].core.give_back(&[first, subnets("10.5.99.0-24")]);
    cluster.rest();
    assert_eq!(cluster.used(0).len(), 2);
    let name = flannel::key::name(&first);
    assert_eq!((cluster.lease_of(&name), cluster.owner_of(&name)), (None, None));
    let rest: Vec<_> = cluster.nodes[0].used.iter().copied().collect();
    cluster.nodes[0].core.give_back(&rest);
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
    cluster.nodes[3].core.more();
    let gone = cluster.nodes.remove(0);
    cluster.world.end_lease(gone.core.own.lease.unwrap());
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
    cluster.nodes[0].core.give_back(&[only]);
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
    cluster.nodes[0].core.give_back(&[had]);
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
    super::world::assert_disjoint(&cluster.nodes);
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

#[test]
fn a_full_disk_gives_no_new_subnet_and_takes_no_old_one() {
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    cluster.nodes[0].core.more();
    for _ in 0..200 {
        let now = clock(cluster.passed);
        let node = &mut cluster.nodes[0];
        while node.see(&cluster.world, super::super::view::Part::Flannel, 9, now)
            | node.see(&cluster.world, super::super::view::Part::Cluster, 9, now)
        {}
        node.decide(now);
        let fate = if node.is_saving() { Fate::Unasked } else { Fate::Done };
        node.act(&mut cluster.world, fate);
        node.learn(now);
        cluster.passed += Duration::from_millis(100);
    }
    assert_eq!(cluster.only(0), had);
    assert!(cluster.nodes[0].core.save_problem.is_some());
    cluster.wait(Duration::from_secs(30));
    assert_eq!(cluster.used(0).len(), 2);
    assert!(cluster.nodes[0].core.save_problem.is_none());
}

#[test]
fn what_the_disk_still_has_is_not_let_go_of() {
    // Else the node would use it after a restart, beside the one who has it by then.
    let mut cluster = Cluster::settled(1);
    let had = cluster.only(0);
    let name = flannel::key::name(&had);
    cluster.nodes[0].full = true;
    cluster.nodes[0].core.give_back(&[had]);
    cluster.wait(Duration::from_secs(60));
    assert!(!cluster.nodes[0].used.contains(&had), "it is not used any more");
    assert_eq!(cluster.owner_of(&name).as_deref(), Some("id-1"), "and nobody else can have it");
    cluster.nodes[0].full = false;
    cluster.wait(Duration::from_secs(60));
    assert_eq!(cluster.owner_of(&name), None);
}

#[test]
fn a_reservation_that_was_given_back_is_known_like_anybodys() {
    let mut cluster = Cluster::settled(1);
    cluster.nodes[0].core.more();
    cluster.rest();
    let had: Vec<_> = cluster.nodes[0].used.iter().copied().collect();
    let name = flannel::key::name(&had[0]);
    // Whoever wrote it bound it to no lease: a reservation from now on.
    cluster.world.put(&keys().lease(&name), "{", 0);
    cluster.wait(Duration::from_secs(60));
    cluster.nodes[0].core.give_back(&had[..1]);
    cluster.wait(Duration::from_secs(60));
    assert_eq!((cluster.owner_of(&name), cluster.used(0).len()), (None, 1));
    assert!(cluster.nodes[0].peers.contains_key(&name));
}
