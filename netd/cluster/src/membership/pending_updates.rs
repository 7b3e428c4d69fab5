//! Updates that the reader has not taken yet. Pure.
//!
//! The reader may be slow, and nothing may wait for it: an update replaces an older one
//! about the same key, so the size is bounded by the number of keys.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use super::{IdentityUpdate, OwnSubnets, PeerUpdate, Update};
use crate::{ClusterConfig, Subnets};

/// Peers in one message, so that the reader gets to other work in between.
const MAX_PEERS: usize = 20_000;

/// See the module.
#[derive(Debug, Default)]
pub struct PendingUpdates {
    config: Option<Arc<ClusterConfig>>,
    config_problem: Option<String>,
    no_subnet: Option<String>,
    identity: Option<IdentityUpdate>,
    /// Inner `None`: the leases say what they should.
    unreadable: Option<Option<String>>,
    addresses: Option<(Option<Ipv4Addr>, Option<Ipv6Addr>)>,
    own: Option<Vec<OwnSubnets>>,
    lost: Vec<Subnets>,
    peers: BTreeMap<String, PeerUpdate>,
    synced: bool,
    /// Since when and why behind; inner `None`: caught up.
    behind: Option<Option<(u64, String)>>,
}

impl PendingUpdates {
    /// Another configuration is in force.
    pub fn config(&mut self, config: Arc<ClusterConfig>) {
        self.config_problem = None;
        self.config = Some(config);
    }

    /// The configuration can't be read.
    pub fn config_problem(&mut self, problem: String) {
        self.config_problem = Some(problem);
    }

    /// The node has too few subnets.
    pub fn no_subnet(&mut self, problem: String) {
        self.no_subnet = Some(problem);
    }

    /// It has what it needs.
    pub fn forget_no_subnet(&mut self) {
        self.no_subnet = None;
    }

    /// Whose this node's id is.
    pub fn identity(&mut self, identity: IdentityUpdate) {
        self.identity = Some(identity);
    }

    /// Why its leases can't say what they should.
    pub fn unreadable(&mut self, why: Option<String>) {
        self.unreadable = Some(why);
    }

    /// The node's own addresses, as the cluster has them.
    pub fn addresses(&mut self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) {
        self.addresses = Some((v4, v6));
    }

    /// All subnets that the node may use.
    pub fn own(&mut self, own: Vec<OwnSubnets>) {
        self.own = Some(own);
    }

    /// A subnet is another node's now.
    pub fn lost(&mut self, subnets: Subnets) {
        self.lost.push(subnets);
    }

    /// Changes of the others' leases.
    pub fn peers(&mut self, updates: Vec<PeerUpdate>) {
        for update in updates {
            let (PeerUpdate::Set { key, .. }
            | PeerUpdate::Removed { key }
            | PeerUpdate::Refused { key, .. }) = &update;
            let (plain, refused) = (key.clone(), format!("{key}\0"));
            // A refusal leaves in force what was told of the key before it.
            if matches!(update, PeerUpdate::Refused { .. }) {
                self.peers.insert(refused, update);
            } else {
                self.peers.remove(&refused);
                self.peers.insert(plain, update);
            }
        }
    }

    /// Everything was listed once.
    pub fn synced(&mut self) {
        self.synced = true;
    }

    /// Since when and why the source is out of reach; `None`: it is back.
    pub fn behind(&mut self, behind: Option<(u64, String)>) {
        self.behind = Some(behind);
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.config.is_none()
            && self.config_problem.is_none()
            && self.no_subnet.is_none()
            && self.identity.is_none()
            && self.unreadable.is_none()
            && self.addresses.is_none()
            && self.own.is_none()
            && self.lost.is_empty()
            && self.peers.is_empty()
            && !self.synced
            && self.behind.is_none()
    }

    /// The next thing to tell: `Synced` after everything that was listed.
    pub fn take_next(&mut self) -> Option<Update> {
        // Nothing is announced by keys that are to be renewed.
        if let Some(identity) = self.identity.take() {
            return Some(Update::Identity(identity));
        }
        if let Some(config) = self.config.take() {
            return Some(Update::Config(config));
        }
        if let Some(problem) = self.config_problem.take() {
            return Some(Update::ConfigProblem(problem));
        }
        if let Some(why) = self.unreadable.take() {
            return Some(Update::Unreadable(why));
        }
        if let Some((v4, v6)) = self.addresses.take() {
            return Some(Update::Addresses { v4, v6 });
        }
        if !self.lost.is_empty() {
            return Some(Update::Lost(self.lost.remove(0)));
        }
        if let Some(own) = self.own.take() {
            return Some(Update::Own(own));
        }
        if let Some(problem) = self.no_subnet.take() {
            return Some(Update::NoSubnet(problem));
        }
        if !self.peers.is_empty() {
            return Some(Update::Peers(self.some_peers()));
        }
        if std::mem::take(&mut self.synced) {
            return Some(Update::Synced);
        }
        self.behind.take().map(|behind| match behind {
            Some((since, why)) => Update::Behind { since, why },
            None => Update::CaughtUp,
        })
    }

    fn some_peers(&mut self) -> Vec<PeerUpdate> {
        let rest = match self.peers.keys().nth(MAX_PEERS).cloned() {
            Some(key) => self.peers.split_off(&key),
            None => BTreeMap::new(),
        };
        std::mem::replace(&mut self.peers, rest).into_values().collect()
    }
}
