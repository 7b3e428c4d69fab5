//! Several nodes on one store, with every step delayed, lost, or a node's last.

use std::time::Duration;

use proptest::prelude::*;

use super::{
    super::view::Part,
    world::{Fate, Node, World, assert_disjoint, clock, config, rest},
};
use netd_store::keys::ClusterKeys;

#[derive(Debug, Clone)]
enum Event {
    Decide(usize),
    Act(usize, Fate),
    Learn(usize),
    See(usize, bool, usize),
    Relist(usize, bool),
    Kill(usize, u64),
    Pass(u64),
    /// Its disk is full, or no longer.
    Full(usize, bool),
    More(usize),
    GiveBack(usize),
    Renumber(usize, u8),
    Config(u8),
    /// A flannel node takes a subnet, as it does: the key has to be new, nothing else.
    Flannel(u8, u8),
}

/// What breaks the rules that nodes keep: ends leases, deletes and overwrites keys.
#[derive(Debug, Clone)]
enum Harm {
    EndLease(usize),
    Delete(usize),
    Overwrite(usize, u8),
    Junk(usize),
}

const NODES: usize = 4;

fn event() -> impl Strategy<Value = Event> {
    let node = 0..NODES;
    let fate = prop_oneof![
        8 => Just(Fate::Completion),
        1 => Just(Fate::Unasked),
        1 => Just(Fate::Unanswered),
    ];
    prop_oneof![
        12 => node.clone().prop_map(Event::Decide),
        12 => (node.clone(), fate).prop_map(|(n, fate)| Event::Act(n, fate)),
        12 => node.clone().prop_map(Event::Learn),
        14 => (node.clone(), any::<bool>(), 1usize..4).prop_map(|(n, p, k)| Event::See(n, p, k)),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, p)| Event::Relist(n, p)),
        2 => (node.clone(), any::<u64>()).prop_map(|(n, seed)| Event::Kill(n, seed)),
        4 => (1u64..5000).prop_map(Event::Pass),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, full)| Event::Full(n, full)),
        3 => node.clone().prop_map(Event::More),
        3 => node.clone().prop_map(Event::GiveBack),
        1 => (node, 100u8..110).prop_map(|(n, ip)| Event::Renumber(n, ip)),
        1 => (23u8..26).prop_map(Event::Config),
        1 => (1u8..9, 200u8..205).prop_map(|(third, ip)| Event::Flannel(third, ip)),
    ]
}

fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        (1usize..20).prop_map(Harm::EndLease),
        (0usize..50).prop_map(Harm::Delete),
        (0usize..50, 200u8..205).prop_map(|(n, ip)| Harm::Overwrite(n, ip)),
        (0usize..50).prop_map(Harm::Junk),
    ]
}

struct Race {
    world: World,
    nodes: Vec<Node>,
    passed: Duration,
}

impl Race {
    fn new() -> Self {
        let mut world = World::default();
        world.put(&ClusterKeys::default().config(), &config(24), 0);
        let nodes = (0..NODES).map(|n| Node::plain(n as u8 + 1)).collect();
        Self { world, nodes, passed: Duration::ZERO }
    }

    fn part(flannel: bool) -> Part {
        if flannel { Part::Flannel } else { Part::Cluster }
    }

    fn apply(&mut self, event: Event) {
        let now = clock(self.passed);
        let keys = ClusterKeys::default();
        let (world, nodes) = (&mut self.world, &mut self.nodes);
        match event {
            Event::Decide(n) => drop(nodes[n].decide(now)),
            Event::Act(n, fate) => nodes[n].act(world, fate),
            Event::Learn(n) => nodes[n].learn(now),
            Event::See(n, part, k) => drop(nodes[n].see(world, Self::part(part), k, now)),
            Event::Relist(n, part) => nodes[n].list(world, Self::part(part), now),
            Event::Kill(n, seed) => nodes[n].restart(seed),
            Event::Pass(millis) => self.passed += Duration::from_millis(millis),
            Event::Full(n, full) => nodes[n].full = full,
            Event::More(n) => nodes[n].reconciler.more(),
            Event::GiveBack(n) => {
                if let Some(subnets) = nodes[n].used.pop_last() {
                    nodes[n].reconciler.give_back(&[subnets]);
                }
            }
            Event::Renumber(n, ip) => nodes[n].announce(super::world::attrs(ip)),
            Event::Config(len) => world.put(&keys.config(), &config(len), 0),
            Event::Flannel(third, ip) => {
                let key = keys.lease(&format!("10.5.{third}.0-24"));
                // As flannel's own view: it would not choose what overlaps.
                if !world.entries.keys().any(|k| k.contains(&format!("10.5.{third}."))) {
                    let lease = world.grant();
                    world.put(&key, &format!(r#"{{"PublicIP":"192.0.2.{ip}"}}"#), lease);
                }
            }
        }
    }

    fn harm(&mut self, harm: Harm) {
        let world = &mut self.world;
        let key = |world: &World, n: usize| {
            let keys: Vec<_> = world.entries.keys().filter(|k| !k.ends_with("config")).collect();
            (!keys.is_empty()).then(|| keys[n % keys.len()].clone())
        };
        match harm {
            Harm::EndLease(n) => world.end_lease(n as i64),
            Harm::Delete(n) => {
                if let Some(key) = key(world, n) {
                    world.delete(&key);
                }
            }
            Harm::Overwrite(n, ip) => {
                if let Some(key) = key(world, n).filter(|k| k.contains("/subnets/")) {
                    let lease = world.grant();
                    world.put(&key, &format!(r#"{{"PublicIP":"192.0.2.{ip}"}}"#), lease);
                }
            }
            Harm::Junk(n) => {
                if let Some(key) = key(world, n) {
                    world.put(&key, "{", 0);
                }
            }
        }
    }

    /// After some quiet, everybody has what the store says he has, and knows the others.
    fn assert_converged(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.full = false);
        self.passed = rest(&mut self.world, &mut self.nodes, self.passed, Duration::from_secs(120));
        assert_disjoint(&self.nodes);
        let keys = ClusterKeys::default();
        let leases = self.world.entries.values().filter(|e| e.key.starts_with(&keys.leases()));
        let leases: Vec<_> = leases.cloned().collect();
        let readable = |e: &&netd_store::Entry| {
            let name = e.key.strip_prefix(&keys.leases()).unwrap();
            crate::flannel::key::parse(name).is_ok()
                && crate::flannel::value::parse(&e.value).is_ok()
        };
        for node in &self.nodes {
            let names: Vec<_> = node.used.iter().map(crate::flannel::key::name).collect();
            let enough = node.reconciler.claims.problem.is_some() || !node.used.is_empty();
            assert!(enough, "{} has nothing and does not say why", node.id);
            for name in &names {
                let owner = &self.world.entries[&keys.owner(name)];
                let owner = String::from_utf8_lossy(&owner.value);
                assert!(owner.contains(&format!("\"{}\"", node.id)), "{name}: {owner}");
                let lease = &self.world.entries[&keys.lease(name)];
                let said = crate::flannel::value::parse(&lease.value).unwrap();
                assert_eq!(Some(said), node.reconciler.claims.attrs, "{name}");
                assert!(lease.lease == 0 || Some(lease.lease) == node.reconciler.claims.lease);
            }
            let mine = |e: &netd_store::Entry| {
                let name = e.key.strip_prefix(&keys.leases()).unwrap();
                names.iter().any(|n| n == name)
            };
            let others: Vec<_> = leases
                .iter()
                .filter(|e| !mine(e))
                .filter(readable)
                .map(|e| e.key.strip_prefix(&keys.leases()).unwrap().to_owned())
                .collect();
            for name in &others {
                assert!(node.peers.contains_key(name), "{} does not know {name}", node.id);
            }
            for (name, _) in node.peers.iter().filter(|(name, _)| !others.contains(name)) {
                assert!(node.refused.contains_key(name), "{} still has {name}", node.id);
            }
            let marks = format!("\"id\":\"{}\"", node.id);
            let owned = self.world.entries.values().filter(|e| {
                e.key.starts_with(&keys.owners())
                    && String::from_utf8_lossy(&e.value).contains(&marks)
            });
            assert_eq!(owned.count(), names.len(), "{} owns more than it uses", node.id);
        }
        let before = self.world.revision;
        self.passed =
            rest(&mut self.world, &mut self.nodes, self.passed, Duration::from_secs(7200));
        assert_eq!(self.world.revision, before, "something is written without need");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is delayed, lost or killed: no address is ever used by two.
    #[test]
    fn no_subnet_is_ever_used_by_two(
        events in proptest::collection::vec(event(), 0..400),
    ) {
        let mut race = Race::new();
        for event in events {
            race.apply(event);
            assert_disjoint(&race.nodes);
        }
        race.assert_converged();
    }

    /// And after any damage to the store they come to agree again.
    #[test]
    fn everything_converges_after_harm(
        events in proptest::collection::vec(
            prop_oneof![9 => event().prop_map(Ok), 1 => harm().prop_map(Err)],
            0..300,
        ),
    ) {
        let mut race = Race::new();
        for event in events {
            match event {
                Ok(event) => race.apply(event),
                Err(harm) => race.harm(harm),
            }
        }
        race.assert_converged();
    }
}
