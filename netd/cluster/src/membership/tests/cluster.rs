//! Nodes of one cluster that come to rest between the steps of a case.

use std::time::Duration;

use super::{
    super::{Update, reconciler::Settings, records::OwnerRecord},
    world::{Node, TTL, World, config, rest, subnets},
};
use crate::{LeaseAttrs, Subnets, flannel};
use netd_store::keys::ClusterKeys;

pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) struct Cluster {
    pub world: World,
    pub nodes: Vec<Node>,
    pub passed: Duration,
}

pub(crate) fn keys() -> ClusterKeys {
    ClusterKeys::default()
}

pub(crate) fn settings(fixed: Option<&str>, preferred: &[&str]) -> Settings {
    let preferred = preferred.iter().map(|name| subnets(name)).collect();
    Settings { ttl: TTL, fixed: fixed.map(subnets), preferred }
}

pub(crate) fn value(attrs: &LeaseAttrs) -> String {
    flannel::value::format(attrs)
}

impl Cluster {
    pub(crate) fn of(nodes: Vec<Node>) -> Self {
        let mut world = World::default();
        world.put(&keys().config(), &config(24), 0);
        Self { world, nodes, passed: Duration::ZERO }
    }

    /// One that has come to rest.
    pub(crate) fn settled(nodes: u8) -> Self {
        let mut cluster = Self::of((1..=nodes).map(Node::plain).collect());
        cluster.rest();
        cluster
    }

    pub(crate) fn rest(&mut self) {
        self.wait(SOON);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.passed = rest(&mut self.world, &mut self.nodes, self.passed, time);
    }

    pub(crate) fn used(&self, n: usize) -> Vec<String> {
        self.nodes[n].used.iter().map(flannel::key::name).collect()
    }

    pub(crate) fn only(&self, n: usize) -> Subnets {
        assert_eq!(self.nodes[n].used.len(), 1, "{:?}", self.used(n));
        *self.nodes[n].used.first().unwrap()
    }

    pub(crate) fn lease_of(&self, name: &str) -> Option<(String, i64)> {
        let entry = self.world.entries.get(&keys().lease(name))?;
        Some((String::from_utf8(entry.value.clone()).unwrap(), entry.lease))
    }

    pub(crate) fn owner_of(&self, name: &str) -> Option<String> {
        let entry = self.world.entries.get(&keys().owner(name))?;
        Some(OwnerRecord::parse(&entry.value).unwrap().id)
    }

    pub(crate) fn flannel_has(&mut self, name: &str, attrs: &LeaseAttrs) {
        let lease = self.world.grant();
        self.world.put(&keys().lease(name), &value(attrs), lease);
    }

    pub(crate) fn problems(&self, n: usize) -> Vec<String> {
        let problem = |u: &Update| match u {
            Update::NoSubnet(why) => Some(why.clone()),
            _ => None,
        };
        self.nodes[n].news.iter().filter_map(problem).collect()
    }
}
