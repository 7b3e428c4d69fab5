//! What is left of detached endpoints, so that a late attach is refused, and addresses are
//! used again in the order in which they became free.

use super::node_state::NodeState;
use crate::node::clock::now_unix;
use netd_domain::{Endpoint, EndpointKey, Tombstone};

impl NodeState {
    /// The tombstone of `endpoint`.
    pub(crate) fn make_tombstone(&self, endpoint: &Endpoint) -> Tombstone {
        Tombstone {
            key: endpoint.key.clone(),
            issued_at: endpoint.issued_at,
            released_at: now_unix(),
            network: Some(endpoint.network.clone()),
            addresses: endpoint.ips().collect(),
            sequence: self.inner.lock().next_sequence(),
        }
    }

    /// The tombstone of a detach that found no endpoint.
    pub(crate) fn empty_tombstone(&self, key: &EndpointKey, issued_at: u64) -> Tombstone {
        Tombstone {
            key: key.clone(),
            issued_at,
            released_at: now_unix(),
            network: None,
            addresses: vec![],
            sequence: self.inner.lock().next_sequence(),
        }
    }

    /// Frees the addresses after the link is deleted and the store has the tombstone.
    pub(crate) fn released(&self, endpoint: &Endpoint, tombstone: Tombstone) {
        self.drop_reservation(endpoint, &[]);
        self.add_tombstone(tombstone);
    }

    /// Adds or replaces a tombstone.
    pub(crate) fn add_tombstone(&self, tombstone: Tombstone) {
        self.inner.lock().tombstones.insert(tombstone.key.clone(), tombstone);
    }

    /// The tombstone of a key.
    pub(crate) fn tombstone(&self, key: &EndpointKey) -> Option<Tombstone> {
        self.inner.lock().tombstones.get(key).cloned()
    }

    /// Whether the endpoint, or its whole sandbox, was detached after `issued_at`.
    pub(crate) fn is_fenced(&self, key: &EndpointKey, issued_at: u64) -> bool {
        let tombstones = &self.inner.lock().tombstones;
        let later = |key| tombstones.get(key).is_some_and(|t| issued_at < t.issued_at);
        later(key) || later(&EndpointKey::every(key.sandbox.clone()))
    }

    /// Removes a key's tombstone.
    pub(crate) fn remove_tombstone(&self, key: &EndpointKey) {
        self.inner.lock().tombstones.remove(key);
    }

    /// Tombstones made at or before `limit`, seconds since the Unix epoch.
    pub(crate) fn old_tombstones(&self, limit: i64) -> Vec<EndpointKey> {
        let inner = self.inner.lock();
        let old = inner.tombstones.values().filter(|t| t.released_at <= limit);
        old.map(|t| t.key.clone()).collect()
    }
}
