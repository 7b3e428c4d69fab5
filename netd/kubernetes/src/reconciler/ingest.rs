//! Takes Nodes as the API tells them.

use std::sync::Arc;

use netd_cluster::{
    Lease,
    membership::source::{Now, Seen},
};

use super::{OwnNode, Reconciler};
use crate::{followed::News, node::NodeFacts};

impl Reconciler {
    /// Takes news of the API.
    pub(crate) fn ingest(&mut self, news: News, now: Now) {
        match news {
            News::Failed(why) => return self.failed(why, now),
            News::Works => {}
            News::Listed(nodes) => self.listed(nodes, now),
            News::Changed(node) if node.name == self.settings.node => self.own_is(*node, now),
            News::Changed(node) => self.changed(*node, now),
            News::Deleted(node) if node.name == self.settings.node => {
                self.own = OwnNode::Missing;
                self.judge_own(now);
            }
            News::Deleted(node) => self.gone(node.name, now),
        }
        if self.failing.take().is_some() {
            self.patch_pace.reset();
        }
        self.tell_behind();
    }

    fn listed(&mut self, nodes: Vec<NodeFacts>, now: Now) {
        let own = nodes.iter().find(|node| node.name == self.settings.node).cloned();
        // Then the API may know less than it did: it was restored from an older copy.
        let doubtful = own.is_none() && self.held.is_some();
        let leases: Vec<_> =
            nodes.iter().filter_map(|node| Some((node, self.lease(node)?))).collect();
        let seen = leases.iter().map(|(node, lease)| {
            let mine = node.name == self.settings.node;
            let (created, modified) = (node.created, node.revision);
            (node.name.as_str(), Seen { lease, created, modified, mine })
        });
        let updates = self.peers.list(&seen.collect(), doubtful, now);
        self.pending.peers(updates);
        let first = matches!(self.own, OwnNode::Unknown);
        self.own = own.map_or(OwnNode::Missing, |node| OwnNode::There(Box::new(node)));
        self.judge_own(now);
        if first {
            self.pending.synced();
        }
    }

    fn changed(&mut self, node: NodeFacts, now: Now) {
        let Some(lease) = self.lease(&node) else { return self.gone(node.name, now) };
        let (created, modified) = (node.created, node.revision);
        let seen = Seen { lease: &lease, created, modified, mine: false };
        let update = self.peers.set(&node.name, seen, now);
        if update.is_some() {
            self.pending.peers(update.into_iter().collect());
            // It may have what this node, which the API does not have, had.
            self.judge_own(now);
        }
    }

    /// A Node is gone, or has no pod network any more: both are somebody's decision.
    fn gone(&mut self, name: String, now: Now) {
        let updates = self.peers.removed(vec![name], false, now);
        if !updates.is_empty() {
            self.pending.peers(updates);
            self.judge_own(now);
        }
    }

    /// `None`: the Node has no pod network of flannel's or netd's.
    fn lease(&self, node: &NodeFacts) -> Option<Result<Arc<Lease>, String>> {
        let subnets = node.subnets.as_ref().ok().copied().flatten();
        let attrs = self.settings.prefix.read(&node.annotations, subnets.as_ref())?;
        Some(match (&node.subnets, attrs, subnets) {
            (Err(why), _, _) => Err(why.clone()),
            (_, Err(why), _) => Err(why),
            (_, _, None) => Err("spec.podCIDRs: not assigned".to_owned()),
            (_, Ok(attrs), Some(subnets)) => {
                Ok(Arc::new(Lease { subnets, attrs, reservation: false }))
            }
        })
    }
}
