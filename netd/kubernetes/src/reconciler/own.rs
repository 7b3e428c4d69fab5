//! This node's subnets: what its Node's `spec.podCIDRs` say, unless an older Node has them.

use netd_cluster::{
    ClusterConfig, Family, Subnets, flannel,
    membership::{
        OwnSubnets,
        source::{Now, overlap},
    },
};

use super::{OwnNode, Reconciler};
use crate::{node::NodeFacts, own_file::OwnFile};

impl Reconciler {
    pub(super) fn own_is(&mut self, node: NodeFacts, now: Now) {
        self.own = OwnNode::There(Box::new(node));
        self.judge_own(now);
    }

    /// Takes the answer to a patch, unless the watch has told something newer meanwhile.
    pub(super) fn own_was(&mut self, node: NodeFacts, now: Now) {
        let is_news = match &self.own {
            OwnNode::There(known) => known.uid == node.uid && known.revision < node.revision,
            OwnNode::Unknown | OwnNode::Missing => false,
        };
        if is_news {
            self.own_is(node, now);
        }
    }

    /// Works out which subnets the node has.
    pub(super) fn judge_own(&mut self, now: Now) {
        let held = self.held.map(|(subnets, _)| subnets);
        let (has, problem) = match (&self.own, self.config.now()) {
            (OwnNode::Unknown, _) | (_, None) => return,
            (OwnNode::Missing, _) => self.without_node(held),
            (OwnNode::There(node), Some(config)) => match self.older(node) {
                Some(problem) => (None, Some(problem)),
                None => assigned(node, config, held),
            },
        };
        if held != has {
            if let Some(lost) = held {
                tracing::warn!(
                    "the subnets {} are no longer this node's",
                    flannel::key::name(&lost)
                );
                self.pending.lost(lost);
            }
            if let Some(gained) = has {
                tracing::info!("the subnets {} are this node's", flannel::key::name(&gained));
            }
            self.held = has.map(|subnets| (subnets, now.unix));
        }
        if let Some(problem) = problem.as_ref().filter(|_| problem != self.own_problem) {
            tracing::warn!("{problem}");
        }
        self.own_problem = problem;
        self.judge_addresses();
        self.tell_own();
    }

    /// Without a Node the subnets stay this machine's until another Node has them: the API may
    /// have been restored from an older copy, and kubelet makes the Node again.
    fn without_node(&self, held: Option<Subnets>) -> (Option<Subnets>, Option<String>) {
        let name = &self.settings.node;
        let mut peers = self.peers.known().iter();
        let taken = held.and_then(|held| peers.find(|(_, k)| overlap(&held, &k.lease.subnets)));
        if let Some((other, _)) = taken {
            let text = format!("there is no Node {name}, and Node {other} has its podCIDR now");
            return (None, Some(text));
        }
        let text = format!(
            "there is no Node {name}: kubelet makes it; if it has another name, set `node` \
             (NETD_NODE, spec.nodeName of netd's pod)"
        );
        (held, Some(text))
    }

    /// What to say where an older Node has this one's podCIDR, too: all other nodes send to that.
    fn older(&self, node: &NodeFacts) -> Option<String> {
        let own = node.subnets.as_ref().ok().copied().flatten()?;
        let age = (node.created, node.name.as_str());
        let mut peers = self.peers.known().iter();
        let (other, _) = peers.find(|(name, known)| {
            (known.created, name.as_str()) < age && overlap(&own, &known.lease.subnets)
        })?;
        let name = &node.name;
        Some(format!(
            "Node {other}, which is older than Node {name}, has a podCIDR of the same addresses: \
             delete one of both Nodes, so that it gets another"
        ))
    }

    /// Publishes the usable subnets: those that the node has and that are on disk.
    pub(super) fn tell_own(&mut self) {
        let on_disk = self.saved.held.map(|(subnets, _)| subnets);
        let usable = self.held.filter(|(subnets, _)| {
            on_disk == Some(*subnets) && self.saved.node == self.settings.node
        });
        let own = usable.map(|(subnets, since)| OwnSubnets {
            key: self.settings.node.clone(),
            subnets,
            reservation: false,
            fits: true,
            since,
        });
        let own: Vec<_> = own.into_iter().collect();
        // Both together, and the problem last: subnets that are told say that all is well.
        let told = (own, self.own_problem.clone());
        if self.told.as_ref() == Some(&told) {
            return;
        }
        self.pending.own(told.0.clone());
        match told.1.clone() {
            Some(problem) => self.pending.no_subnet(problem),
            None => self.pending.forget_no_subnet(),
        }
        self.told = Some(told);
    }

    /// Whether what is on disk is another Node's.
    pub(super) fn is_renamed(&self) -> bool {
        !self.saved.node.is_empty() && self.saved.node != self.settings.node
    }

    /// What is to be on disk. As long as a node that was renamed has its old keys, so has it its
    /// old name: after a crash it has to know that they are to be renewed.
    pub(super) fn file(&self) -> OwnFile {
        if self.is_renamed() && !self.announced {
            return self.saved.clone();
        }
        OwnFile {
            node: self.settings.node.clone(),
            config: self.config.text().map(str::to_owned).or_else(|| self.saved.config.clone()),
            attrs: self.attrs.clone(),
            held: self.held,
        }
    }
}

/// What of a Node's podCIDRs the node has, and what is wrong with them. What it had it keeps
/// while nothing is assigned.
fn assigned(
    node: &NodeFacts,
    config: &ClusterConfig,
    held: Option<Subnets>,
) -> (Option<Subnets>, Option<String>) {
    let name = &node.name;
    let given = match node.assigned() {
        Ok(subnets) => subnets,
        Err(why) => return (held, Some(why)),
    };
    let (mut has, mut problem) = (given, None);
    for family in Family::ALL {
        let wrong = match (given.of(family), config.network(family)) {
            (Some(subnet), Some(network)) if !network.contains(&subnet) => Some(format!(
                "spec.podCIDRs: {subnet} is outside of {network}, the network of net-conf.json"
            )),
            (None, Some(network)) => Some(format!(
                "spec.podCIDRs has no {family} subnet, and net-conf.json has {network}"
            )),
            (Some(_), None) => None,
            _ => continue,
        };
        match family {
            Family::V4 => has.v4 = None,
            Family::V6 => has.v6 = None,
        }
        problem = problem.or(wrong.map(|wrong| format!("Node {name}: {wrong}")));
    }
    let some = has.v4.is_some() || has.v6.is_some();
    (some.then_some(has), problem)
}
