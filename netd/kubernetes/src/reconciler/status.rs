//! How the node is doing in the cluster, for people.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use netd_cluster::{
    Family,
    membership::{Listing, OwnerRecord, Status, VtepClaims, source::vtep},
};

use super::{OwnNode, Reconciler};

impl Reconciler {
    pub(crate) fn status(&self) -> Status {
        Status {
            node_id: self.settings.node.clone(),
            announced: self.attrs.clone(),
            identity_problem: None,
            lease: None,
            ttl: Duration::ZERO,
            renewed: None,
            behind: self.behind().cloned(),
            synced: !matches!(self.own, OwnNode::Unknown),
            wanted: 1,
            own: self.held.iter().count(),
            peers: self.peers.known().len(),
            held_back: self.peers.held(),
            refused: self.peers.refused().len(),
            config_problem: self.config.problem().map(str::to_owned),
            subnet_problem: self.own_problem.clone(),
            disk_problem: self.save_problem.clone(),
        }
    }

    /// The Nodes by name; a Node is known by it.
    pub(crate) fn listing(&self) -> Listing {
        let owner = |name: &String, since| {
            let record =
                OwnerRecord { id: name.clone(), node: name.clone(), since, reserved: None };
            (name.clone(), Arc::new(record))
        };
        let owners = self.peers.known().iter().map(|(name, known)| owner(name, known.since));
        Listing {
            owners: owners.collect(),
            nodes: BTreeMap::new(),
            refused: self.peers.refused().clone(),
        }
    }

    /// Which MACs the Nodes name for VTEPs; `None`: they were not listed yet.
    pub(crate) fn vteps(&self, family: Family) -> Option<VtepClaims> {
        let mut claims = VtepClaims::default();
        match &self.own {
            OwnNode::Unknown => return None,
            OwnNode::Missing => {}
            OwnNode::There(node) => {
                let subnets = node.subnets.as_ref().ok().and_then(Option::as_ref);
                let attrs = self.settings.prefix.read(&node.annotations, subnets);
                let left = attrs.and_then(Result::ok).and_then(|attrs| vtep(&attrs, family));
                claims.left.extend(left);
            }
        }
        let others = self.peers.known().values();
        claims.others.extend(others.filter_map(|known| vtep(&known.lease.attrs, family)));
        Some(claims)
    }
}
