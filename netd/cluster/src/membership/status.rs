//! How membership is doing, for people.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    reconciler::Reconciler,
    records::{NodeRecord, OwnerRecord},
    view::Part,
};
use crate::LeaseAttrs;
use netd_store::LeaseId;

/// How membership is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// This node's id; another one after another machine turned out to have it.
    pub node_id: String,
    /// What the node's leases say, or said before netd was started.
    pub announced: Option<LeaseAttrs>,
    /// Why it is in question whether the node's id is this machine's.
    pub identity_problem: Option<String>,
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

fn status(reconciler: &Reconciler) -> Status {
    Status {
        node_id: reconciler.claims.me.id.clone(),
        announced: reconciler.claims.attrs.clone(),
        identity_problem: reconciler.identity_problem.clone(),
        lease: reconciler.claims.lease,
        ttl: reconciler.settings.ttl,
        renewed: reconciler.renewed,
        behind: reconciler.behind().cloned(),
        synced: reconciler.view.is_listed(),
        wanted: reconciler.claims.wanted,
        own: reconciler.claims.held.len(),
        peers: reconciler.peers.known().len(),
        held_back: reconciler.peers.held(),
        refused: reconciler.peers.refused().len(),
        config_problem: reconciler.config.problem().map(str::to_owned),
        subnet_problem: reconciler.claims.problem.clone(),
        disk_problem: reconciler.save_problem.clone(),
    }
}

pub(super) fn publish(reconciler: &Reconciler, to: &watch::Sender<Status>) {
    let status = status(reconciler);
    to.send_if_modified(|old| {
        let news = *old != status;
        if news {
            *old = status;
        }
        news
    });
}

/// By name; what is remembered until they have been listed.
pub(super) fn owners(reconciler: &Reconciler) -> BTreeMap<String, Arc<OwnerRecord>> {
    if reconciler.view.at(Part::Cluster).is_none() {
        return reconciler.remembered_owners.clone();
    }
    let owners = reconciler.view.owners.iter();
    let read = owners.filter_map(|(name, owner)| Some((name, owner.record.as_ref().ok()?)));
    read.map(|(name, record)| (name.clone(), Arc::clone(record))).collect()
}

pub(super) fn listing(reconciler: &Reconciler) -> Listing {
    let nodes = reconciler.view.nodes.iter();
    let nodes = nodes.filter_map(|(id, node)| Some((id.clone(), node.record.clone().ok()?)));
    Listing {
        owners: owners(reconciler),
        nodes: nodes.collect(),
        refused: reconciler.peers.refused().clone(),
    }
}
