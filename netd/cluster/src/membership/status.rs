//! How membership is doing, for people.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    core::Core,
    records::{NodeRecord, OwnerRecord},
    view::Part,
};
use netd_store::LeaseId;

/// How membership is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This node's id; it never changes.
    pub node_id: String,
    /// What this node's keys are bound to; `None`: nothing yet, or it has ended.
    pub lease: Option<LeaseId>,
    /// How long that lasts without renewal.
    pub ttl: Duration,
    /// When it was last renewed, seconds since the epoch.
    pub renewed: Option<u64>,
    /// Since when (seconds since the epoch) and why what is known may be old, and
    /// changes wait to be written.
    pub behind: Option<(u64, String)>,
    /// Whether everything was listed once since the start.
    pub synced: bool,
    /// How many subnets that fit the configuration the node wants.
    pub wanted: usize,
    /// How many it has.
    pub own: usize,
    /// How many leases of others are in force.
    pub peers: usize,
    /// Of these, how many are gone from the store, together with so many others that it
    /// is not believed yet.
    pub held_back: usize,
    /// How many keys can't be read.
    pub refused: usize,
    /// What is wrong with the cluster's configuration.
    pub config_problem: Option<String>,
    /// Why the node has too few subnets.
    pub subnet_problem: Option<String>,
    /// Why the node can't remember its subnets.
    pub disk_problem: Option<String>,
}

/// What is known of the cluster's nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Which netd node has a lease, by the lease's name. A lease that is not among them
    /// is a flannel node's, or a reservation.
    pub owners: BTreeMap<String, Arc<OwnerRecord>>,
    /// netd's nodes, by id.
    pub nodes: BTreeMap<String, Arc<NodeRecord>>,
    /// Keys that can't be read, by name, with the reason.
    pub refused: BTreeMap<String, String>,
}

fn status(core: &Core) -> Status {
    Status {
        node_id: core.own.me.id.clone(),
        lease: core.own.lease,
        ttl: core.settings.ttl,
        renewed: core.renewed,
        behind: core.behind().cloned(),
        synced: core.view.is_listed(),
        wanted: core.own.wanted,
        own: core.own.held.len(),
        peers: core.peers.known().len(),
        held_back: core.peers.held(),
        refused: core.peers.refused().len(),
        config_problem: core.config_problem.clone(),
        subnet_problem: core.own.problem.clone(),
        disk_problem: core.save_problem.clone(),
    }
}

pub(super) fn publish(core: &Core, to: &watch::Sender<Status>) {
    let status = status(core);
    to.send_if_modified(|old| {
        let news = *old != status;
        if news {
            *old = status;
        }
        news
    });
}

/// By name; what is remembered until they have been listed.
pub(super) fn owners(core: &Core) -> BTreeMap<String, Arc<OwnerRecord>> {
    if core.view.at(Part::Cluster).is_none() {
        return core.remembered_owners.clone();
    }
    let owners = core.view.owners.iter();
    let read = owners.filter_map(|(name, owner)| Some((name, owner.record.as_ref().ok()?)));
    read.map(|(name, record)| (name.clone(), Arc::clone(record))).collect()
}

pub(super) fn listing(core: &Core) -> Listing {
    let nodes = core.view.nodes.iter();
    let nodes = nodes.filter_map(|(id, node)| Some((id.clone(), node.record.clone().ok()?)));
    Listing { owners: owners(core), nodes: nodes.collect(), refused: core.peers.refused().clone() }
}
