//! All peers, by all that they are looked for by.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use super::peer::Peer;
use crate::{spec::PeerSpec, table::Table};

/// All peers.
#[derive(Clone, Default)]
pub(super) struct PeerSet {
    by_key: HashMap<[u8; 32], Arc<Peer>>,
    by_index: HashMap<u32, Arc<Peer>>,
    /// Several may be behind one address, one after the other.
    by_endpoint: HashMap<SocketAddr, Vec<Arc<Peer>>>,
    table: Table<Arc<Peer>>,
}

/// What becomes of one peer; it is the same before and after if its sessions go on.
pub(super) struct SetChange {
    pub(super) key: [u8; 32],
    pub(super) old: Option<(Arc<Peer>, PeerSpec)>,
    pub(super) new: Option<(Arc<Peer>, PeerSpec)>,
}

impl PeerSet {
    pub(super) fn apply(&mut self, changes: &[SetChange]) {
        for change in changes {
            let Some((peer, spec)) = &change.old else { continue };
            self.by_key.remove(&change.key);
            self.by_index.remove(&peer.index);
            if let Some(here) = self.by_endpoint.get_mut(&spec.endpoint) {
                here.retain(|other| !Arc::ptr_eq(other, peer));
                if here.is_empty() {
                    self.by_endpoint.remove(&spec.endpoint);
                }
            }
            for net in &spec.subnets {
                self.table.remove(net);
            }
        }
        for change in changes {
            let Some((peer, spec)) = &change.new else { continue };
            self.by_key.insert(change.key, peer.clone());
            self.by_index.insert(peer.index, peer.clone());
            self.by_endpoint.entry(spec.endpoint).or_default().push(peer.clone());
            for net in &spec.subnets {
                self.table.insert(*net, peer.clone());
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.by_key.values()
    }

    pub(super) fn by_key(&self, key: &[u8; 32]) -> Option<&Arc<Peer>> {
        self.by_key.get(key)
    }

    /// By the upper 24 bits of the index that peers send.
    pub(super) fn by_index(&self, index: u32) -> Option<&Arc<Peer>> {
        self.by_index.get(&index)
    }

    /// By where it is looked for first.
    pub(super) fn by_endpoint(&self, endpoint: &SocketAddr) -> Option<&Arc<Peer>> {
        self.by_endpoint.get(endpoint)?.last()
    }

    /// Whose an address is.
    pub(super) fn table(&self) -> &Table<Arc<Peer>> {
        &self.table
    }
}
