//! The transactions of a node's own keys. Pure. Each compares every key that it changes,
//! and changes nothing that is right already.

use super::{
    ownership,
    records::{self, NodeRecord, OwnerRecord},
    view::{LeaseKey, NodeKey, OwnerKey, View},
};
use crate::{LeaseAttrs, Subnets, flannel};
use netd_store::{Change, Compare, LeaseId, Revision, Txn};

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeIdentity {
    pub id: String,
    pub name: String,
    pub version: String,
    /// The boot of this machine; see [`super::incarnation`].
    pub incarnation: String,
}

/// Builds the transactions.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    pub view: &'a View,
    pub me: &'a NodeIdentity,
    pub attrs: &'a LeaseAttrs,
    /// What keys are bound to.
    pub lease: LeaseId,
}

fn compare(key: String, modified: Option<Revision>) -> Compare {
    match modified {
        Some(revision) => Compare::Unchanged(key, revision),
        None => Compare::Absent(key),
    }
}

impl Writer<'_> {
    /// The transaction that corrects the keys of subnets that are this node's or free;
    /// `None`: they are right. `since`: when the node got them, seconds since the epoch.
    pub(super) fn subnets(&self, subnets: &Subnets, since: u64) -> Option<Txn> {
        let name = flannel::key::name(subnets);
        let (lease, owner) = (self.view.leases.get(&name), self.view.owners.get(&name));
        let lease_is_right = lease.is_some_and(|l| self.is_lease_right(l));
        if lease_is_right && lease.zip(owner).is_some_and(|(l, o)| self.is_owner_right(l, o)) {
            return None;
        }
        let keys = &self.view.keys;
        let compares = vec![
            compare(keys.lease(&name), lease.map(|l| l.modified)),
            compare(keys.owner(&name), owner.map(|o| o.modified)),
        ];
        // A reservation stays one, and one that is right is not even touched.
        let reservation = lease.filter(|l| l.bound == 0);
        let untouched = reservation.filter(|_| lease_is_right).map(|l| l.modified);
        let (id, node) = (self.me.id.clone(), self.me.name.clone());
        let record = OwnerRecord { id, node, since, reserved: untouched };
        let mut changes = vec![Change::Put {
            key: keys.owner(&name),
            value: records::render(&record),
            lease: self.lease,
        }];
        if untouched.is_none() {
            changes.push(Change::Put {
                key: keys.lease(&name),
                value: flannel::value::format(self.attrs).into_bytes(),
                lease: if reservation.is_some() { 0 } else { self.lease },
            });
        }
        Some(Txn { compares, changes })
    }

    fn is_lease_right(&self, key: &LeaseKey) -> bool {
        let bound = key.bound == 0 || key.bound == self.lease;
        bound && key.lease.as_ref().is_ok_and(|lease| lease.attrs == *self.attrs)
    }

    fn is_owner_right(&self, lease: &LeaseKey, owner: &OwnerKey) -> bool {
        let mine = |r: &OwnerRecord| r.id == self.me.id && r.node == self.me.name;
        owner.record.as_ref().is_ok_and(|r| mine(r))
            && owner.bound == self.lease
            && !ownership::is_touched(lease, owner)
    }

    /// The transaction that corrects the node's record; `None`: it is right.
    pub(super) fn node(&self, unix: u64) -> Option<Txn> {
        let there = self.view.nodes.get(&self.me.id);
        let old = there.and_then(|node| node.record.as_deref().ok());
        let record = NodeRecord {
            id: self.me.id.clone(),
            name: self.me.name.clone(),
            version: self.me.version.clone(),
            public_ip: self.attrs.public_v4,
            public_ipv6: self.attrs.public_v6,
            backend: self.attrs.backend_type.clone(),
            since: old.map_or(unix, |old| old.since),
            incarnation: Some(self.me.incarnation.clone()),
            contender: None,
        };
        if old == Some(&record) && there.is_some_and(|node| node.bound == self.lease) {
            return None;
        }
        let key = self.view.keys.node(&self.me.id);
        let compares = vec![compare(key.clone(), there.map(|node| node.modified))];
        let value = records::render(&record);
        Some(Txn { compares, changes: vec![Change::Put { key, value, lease: self.lease }] })
    }
}

/// Puts this record, which names a contender, in place of a node's; the etcd lease that it is
/// bound to stays its owner's.
pub(super) fn challenge(key: String, node: &NodeKey, record: &NodeRecord) -> Txn {
    let compares = vec![compare(key.clone(), Some(node.modified))];
    let value = records::render(record);
    Txn { compares, changes: vec![Change::Put { key, value, lease: node.bound }] }
}

/// Removes the owner key of this name, and its lease if `with_lease`; a reservation
/// stays in any case.
pub(super) fn release(view: &View, name: &str, with_lease: bool) -> Txn {
    let (lease, owner) = (view.leases.get(name), view.owners.get(name));
    let mut txn = Txn {
        compares: vec![compare(view.keys.owner(name), owner.map(|o| o.modified))],
        changes: vec![Change::Delete { key: view.keys.owner(name) }],
    };
    if with_lease {
        let key = view.keys.lease(name);
        txn.compares.push(compare(key.clone(), lease.map(|l| l.modified)));
        if lease.is_some_and(|l| l.bound != 0) {
            txn.changes.push(Change::Delete { key });
        }
    }
    txn
}
