//! What the store says, read: leases, their owners, nodes, the configuration. Pure.
//!
//! Two parts with a list and a watch each, flannel's keys and netd's. Each part is whole
//! at its own revision, and one may lag behind the other.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    diff::Seen,
    records::{NodeRecord, OwnerRecord},
};
use crate::{Lease, Subnets, flannel};
use netd_store::{Entry, Event, LeaseId, Revision, keys::ClusterKeys};

/// What is listed and watched as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The configuration and the leases.
    Flannel,
    /// Nodes and owners.
    Cluster,
}

/// A lease key.
#[derive(Debug, Clone)]
pub(super) struct LeaseKey {
    /// What its name says.
    pub subnets: Result<Subnets, String>,
    /// Name and value; an error of the name is one of this, too.
    pub lease: Result<Arc<Lease>, String>,
    /// 0: a reservation.
    pub bound: LeaseId,
    pub created: Revision,
    pub modified: Revision,
}

/// An owner key.
#[derive(Debug, Clone)]
pub(super) struct OwnerKey {
    pub subnets: Option<Subnets>,
    pub record: Result<Arc<OwnerRecord>, String>,
    pub bound: LeaseId,
    pub created: Revision,
    pub modified: Revision,
}

/// A node key.
#[derive(Debug, Clone)]
pub(super) struct NodeKey {
    pub record: Result<Arc<NodeRecord>, String>,
    pub bound: LeaseId,
    pub modified: Revision,
}

/// Which key changed; names without their prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Touched {
    Config,
    Lease(String),
    Owner(String),
    Node(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    pub keys: ClusterKeys,
    pub leases: BTreeMap<String, LeaseKey>,
    pub owners: BTreeMap<String, OwnerKey>,
    pub nodes: BTreeMap<String, NodeKey>,
    /// The configuration's bytes; `None`: missing, or not listed yet.
    pub config: Option<Vec<u8>>,
    flannel_at: Option<Revision>,
    cluster_at: Option<Revision>,
}

impl View {
    pub(super) fn new(keys: ClusterKeys) -> Self {
        Self {
            keys,
            leases: BTreeMap::new(),
            owners: BTreeMap::new(),
            nodes: BTreeMap::new(),
            config: None,
            flannel_at: None,
            cluster_at: None,
        }
    }

    /// The revision of a part; `None`: never listed.
    pub(super) fn at(&self, part: Part) -> Option<Revision> {
        match part {
            Part::Flannel => self.flannel_at,
            Part::Cluster => self.cluster_at,
        }
    }

    /// Whether both parts were listed.
    pub(super) fn is_listed(&self) -> bool {
        self.flannel_at.is_some() && self.cluster_at.is_some()
    }

    /// Since which revision a subnet is claimed under this name. Of claims that overlap the
    /// one with the smaller revision counts, of those of one revision the smaller name.
    pub(super) fn claimed_since(&self, name: &str) -> Option<Revision> {
        let lease = self.leases.get(name).map(|l| l.created);
        let owner = self.owners.get(name).map(|o| o.created);
        [lease, owner].into_iter().flatten().min()
    }

    /// A lease as the diff of the others' takes it.
    pub(super) fn seen(&self, name: &str, mine: bool) -> Option<Seen<'_>> {
        let key = self.leases.get(name)?;
        let created = self.claimed_since(name).unwrap_or(key.created);
        Some(Seen { lease: &key.lease, created, modified: key.modified, mine })
    }

    /// The part that a key is in.
    pub(super) fn part_of(&self, key: &str) -> Part {
        if key.starts_with(&self.keys.cluster()) { Part::Cluster } else { Part::Flannel }
    }

    /// Takes a list of a part in place of what was known of it.
    pub(super) fn list(&mut self, part: Part, entries: Vec<Entry>, revision: Revision) {
        match part {
            Part::Flannel => {
                self.leases.clear();
                self.config = None;
            }
            Part::Cluster => {
                self.owners.clear();
                self.nodes.clear();
            }
        }
        for entry in entries {
            self.put(part, entry);
        }
        self.reached(part, revision);
    }

    /// Takes changes of a part; which keys it knows were among them.
    pub(super) fn change(
        &mut self,
        part: Part,
        events: Vec<Event>,
        revision: Revision,
    ) -> Vec<Touched> {
        let touched = events.into_iter().filter_map(|event| match event {
            Event::Put(entry) => self.put(part, entry),
            Event::Delete { key, .. } => self.delete(part, &key),
        });
        let touched = touched.collect();
        self.reached(part, revision);
        touched
    }

    fn reached(&mut self, part: Part, revision: Revision) {
        match part {
            Part::Flannel => self.flannel_at = Some(revision),
            Part::Cluster => self.cluster_at = Some(revision),
        }
    }

    fn place(&self, part: Part, key: &str) -> Option<Touched> {
        let name = |prefix: String| key.strip_prefix(&prefix).map(str::to_owned);
        match part {
            Part::Flannel if key == self.keys.config() => Some(Touched::Config),
            Part::Flannel => name(self.keys.leases()).map(Touched::Lease),
            Part::Cluster => name(self.keys.owners())
                .map(Touched::Owner)
                .or_else(|| name(self.keys.nodes()).map(Touched::Node)),
        }
    }

    fn put(&mut self, part: Part, entry: Entry) -> Option<Touched> {
        let place = self.place(part, &entry.key)?;
        match &place {
            Touched::Config => self.config = Some(entry.value),
            Touched::Lease(name) => {
                let mut key = LeaseKey::read(name, &entry);
                if let Some(Ok(known)) = self.leases.get(name).map(|old| &old.lease) {
                    key.share(known);
                }
                self.leases.insert(name.clone(), key);
            }
            Touched::Owner(name) => {
                let owner = OwnerKey {
                    subnets: flannel::key::parse(name).ok(),
                    record: OwnerRecord::parse(&entry.value).map(Arc::new),
                    bound: entry.lease,
                    created: entry.create_revision,
                    modified: entry.mod_revision,
                };
                self.owners.insert(name.clone(), owner);
            }
            Touched::Node(id) => {
                let record = NodeRecord::parse(&entry.value).map(Arc::new);
                let node = NodeKey { record, bound: entry.lease, modified: entry.mod_revision };
                self.nodes.insert(id.clone(), node);
            }
        }
        Some(place)
    }

    fn delete(&mut self, part: Part, key: &str) -> Option<Touched> {
        let place = self.place(part, key)?;
        match &place {
            Touched::Config => self.config = None,
            Touched::Lease(name) => drop(self.leases.remove(name)),
            Touched::Owner(name) => drop(self.owners.remove(name)),
            Touched::Node(id) => drop(self.nodes.remove(id)),
        }
        Some(place)
    }
}

impl LeaseKey {
    /// Shares the known lease if it is equal: a renewal needs no copy of it.
    pub(super) fn share(&mut self, known: &Arc<Lease>) {
        if self.lease.as_ref().is_ok_and(|lease| lease == known) {
            self.lease = Ok(Arc::clone(known));
        }
    }

    fn read(name: &str, entry: &Entry) -> Self {
        let subnets = flannel::key::parse(name).map_err(|e| e.to_string());
        let attrs = flannel::value::parse(&entry.value).map_err(|e| e.to_string());
        let reservation = entry.lease == 0;
        let lease = subnets
            .clone()
            .and_then(|subnets| attrs.map(|attrs| Arc::new(Lease { subnets, attrs, reservation })));
        Self {
            subnets,
            lease,
            bound: entry.lease,
            created: entry.create_revision,
            modified: entry.mod_revision,
        }
    }
}
