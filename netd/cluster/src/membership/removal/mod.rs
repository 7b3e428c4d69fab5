//! Takes a node that is gone out of the cluster: its leases are free at once, not when they
//! expire.
//!
//! Whether a netd node is gone is asked as a copy of it would ask ([`super::tenure`]): a
//! contender is written into its record, and a node that runs answers by writing the record
//! again. A node that is cut off from the store can't answer, and flannel is never asked.

mod error;
mod target;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::error::RemovalError;
use self::target::Target;
use super::{
    files::random_uuid,
    in_time::in_time,
    records::NodeRecord,
    view::{NodeKey, Part, View},
    writes,
};
use crate::{LeaseAttrs, Subnets, flannel};
use netd_store::{Change, Compare, Store, Txn, TxnOutcome, keys::ClusterKeys};

/// How long a node may take to answer that it runs. It is a matter of milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at its record.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A request to the store.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Published endpoints of one transaction; see [`target`].
const MAX_ENDPOINTS: usize = 60;

/// What to remove.
#[derive(Debug, Clone)]
pub struct Removal {
    /// A node's name or id, its public address, or a subnet.
    pub target: String,
    /// Without asking whether the node runs.
    pub force: bool,
    /// The id of the node that asks: it can't remove itself.
    pub own_id: String,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The node's name; empty: none is known.
    pub node: String,
    /// The subnets that are free now; empty: the node had none.
    pub subnets: Vec<Subnets>,
    /// What the node's leases said.
    pub attrs: LeaseAttrs,
}

/// Removes a node's leases and record, or one of its leases.
///
/// # Errors
/// See [`RemovalError`]: then the leases are as they were.
pub async fn remove(
    store: &dyn Store,
    keys: ClusterKeys,
    removal: &Removal,
) -> Result<Removed, RemovalError> {
    let view = read(store, keys.clone()).await?;
    let target = Target::find(&view, &removal.target)?;
    if target.id.as_ref() == Some(&removal.own_id) {
        return Err(RemovalError::Own(removal.target.clone()));
    }
    let view = match removal.force {
        true => view,
        false => {
            ask(store, &view, &target, &removal.target).await?;
            read(store, keys).await?
        }
    };
    // What it has by now, if it is the same node.
    let again = Target::find(&view, &removal.target)?;
    let changed = || RemovalError::Changed(removal.target.clone());
    if again.id != target.id {
        return Err(changed());
    }
    let mut endpoints = Vec::new();
    for name in &again.leases {
        endpoints.extend(
            in_time(REQUEST_TIMEOUT, store.list(&view.keys.endpoints_of(name))).await?.entries,
        );
    }
    for txn in again.removal(&view) {
        if let TxnOutcome::Conflict(_) = in_time(REQUEST_TIMEOUT, store.commit(txn)).await? {
            return Err(changed());
        }
    }
    for some in endpoints.chunks(MAX_ENDPOINTS) {
        let mut txn = Txn::default();
        for entry in some {
            txn.compares.push(Compare::Unchanged(entry.key.clone(), entry.mod_revision));
            txn.changes.push(Change::Delete { key: entry.key.clone() });
        }
        // After a conflict they are the next owner's, or end with their etcd lease.
        in_time(REQUEST_TIMEOUT, store.commit(txn)).await?;
    }
    let subnets = again.leases.iter().filter_map(|name| flannel::key::parse(name).ok());
    Ok(Removed { subnets: subnets.collect(), attrs: again.attrs(&view), node: again.node })
}

async fn read(store: &dyn Store, keys: ClusterKeys) -> Result<View, RemovalError> {
    let mut view = View::new(keys);
    let prefixes = [(Part::Flannel, view.keys.flannel()), (Part::Cluster, view.keys.cluster())];
    for (part, prefix) in prefixes {
        let snapshot = in_time(REQUEST_TIMEOUT, store.list(&prefix)).await?;
        view.list(part, snapshot.entries, snapshot.revision);
    }
    Ok(view)
}

/// Asks the node whether it runs.
async fn ask(
    store: &dyn Store,
    view: &View,
    target: &Target,
    text: &str,
) -> Result<(), RemovalError> {
    let unknown = |why| RemovalError::Unknown { who: text.to_owned(), why };
    let Some(id) = &target.id else {
        return Err(unknown("its lease is flannel's or a reservation"));
    };
    let (node, record) = match view.nodes.get(id) {
        Some(NodeKey { record: Err(_), .. }) => return Err(unknown("its record can't be read")),
        Some(node @ NodeKey { record: Ok(record), .. }) => (node, record),
        None => return Err(unknown("it has no record in etcd")),
    };
    if record.incarnation.is_none() {
        return Err(unknown("its netd is too old to answer"));
    }
    if record.contender.is_some() {
        let who = super::tenure::who(record);
        return Err(RemovalError::Changed(format!("{who}, which another machine asks for,")));
    }
    let contender = random_uuid().map_err(|_| unknown("the kernel gave no random number"))?;
    let challenge = NodeRecord { contender: Some(contender), ..NodeRecord::clone(record) };
    let key = view.keys.node(id);
    let txn = writes::challenge(key.clone(), node, &challenge);
    let TxnOutcome::Committed(at) = in_time(REQUEST_TIMEOUT, store.commit(txn)).await? else {
        return Err(RemovalError::Alive(super::tenure::who(record)));
    };
    let until = Instant::now() + ANSWER_TIMEOUT;
    while Instant::now() < until {
        match in_time(REQUEST_TIMEOUT, store.get(&key)).await? {
            // Its etcd lease has ended.
            None => return Ok(()),
            Some(entry) if entry.mod_revision != at => {
                return Err(RemovalError::Alive(super::tenure::who(record)));
            }
            Some(_) => sleep(LOOK_INTERVAL).await,
        }
    }
    Ok(())
}
