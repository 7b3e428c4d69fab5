//! News of the cluster: what is wanted changes, and the difference is programmed.

use std::{sync::Arc, time::Instant};

use super::{Overlay, Peer, State, local::LocalError, subnet_file};
use crate::node::{core::Node, queue::Target};
use netd_cluster::{
    Local, Subnets,
    backend::PeerProblem,
    desired::{Delta, Desired},
    membership::{PeerUpdate, Update},
};
use netd_domain::network::Leased;

/// What a batch of news amounts to.
#[derive(Debug, Default)]
struct Consequence {
    /// This node's facts changed: everything is worked out anew.
    rebuild: bool,
    /// Everything is known now: what is beyond it can be removed.
    whole: bool,
    deltas: Vec<Delta>,
}

impl Overlay {
    /// Takes news in and acts on it.
    pub(super) async fn on_update(&self, node: &Arc<Node>, news: Vec<Update>) {
        let heard = Instant::now();
        let mut state = self.state.lock().await;
        let mut then = Consequence::default();
        for update in news {
            self.note(node, &mut state, update, &mut then);
        }
        self.show_peers(node, &state);
        let right = if then.rebuild {
            self.rebuild(node, &mut state).await
        } else if then.whole {
            self.compare(node, &mut state).await
        } else if !then.deltas.is_empty() && state.complete {
            let right = self.apply(node, &mut state, then.deltas).await;
            node.metrics.overlay_converged(heard.elapsed());
            right
        } else {
            true
        };
        if !right {
            node.queue.later(Target::Overlay, 0);
        }
    }

    fn note(&self, node: &Node, state: &mut State, update: Update, then: &mut Consequence) {
        match update {
            Update::Config(cluster) => {
                node.health.good("overlay/config");
                then.rebuild |= state.cluster.as_ref() != Some(&cluster);
                state.cluster = Some(cluster);
            }
            Update::ConfigProblem(why) if state.cluster.is_some() => {
                node.health.advise("overlay/config", format!("{why}; the one before is in force"));
            }
            Update::ConfigProblem(why) => node.health.bad("overlay/config", why),
            Update::Own(own) => {
                if !own.is_empty() {
                    node.health.good("overlay/subnet");
                }
                then.rebuild |= state.own != own;
                state.own = own;
                self.own_changed.notify_waiters();
            }
            Update::NoSubnet(why) if state.own.is_empty() => node.health.bad("overlay/subnet", why),
            Update::NoSubnet(why) => node.health.advise("overlay/subnet", why),
            Update::Lost(subnets) => {
                let listed: Vec<_> = subnets.iter().map(|net| net.to_string()).collect();
                let text = format!(
                    "{} went to another node: pods with addresses of it reach nobody outside \
                     of this node; delete them",
                    listed.join(", ")
                );
                node.health.advise("overlay/lost", text);
            }
            Update::Peers(updates) => {
                for update in oldest_first(updates) {
                    self.note_peer(state, update, then);
                }
            }
            Update::Synced => {
                node.health.good("etcd");
                then.whole |= !state.complete;
                state.complete = true;
            }
            Update::Behind { since, why } => {
                let since = humantime::format_rfc3339_seconds(
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(since),
                );
                let text = format!("behind since {since}: {why}; what was known is in force");
                node.health.advise("etcd", text);
                // Started without it: what is remembered has to do.
                then.whole |= !state.complete;
            }
            Update::CaughtUp => node.health.good("etcd"),
        }
    }

    fn note_peer(&self, state: &mut State, update: PeerUpdate, then: &mut Consequence) {
        match update {
            PeerUpdate::Set { key, lease, created, since, .. } => {
                state.unreadable.remove(&key);
                if let Some(desired) = state.desired.as_mut() {
                    then.deltas.push(desired.set(&key, lease.clone()));
                }
                state.peers.insert(key, Peer { lease, created, since });
            }
            PeerUpdate::Removed { key } => {
                state.unreadable.remove(&key);
                state.peers.remove(&key);
                if let Some(desired) = state.desired.as_mut() {
                    then.deltas.push(desired.remove(&key));
                }
            }
            PeerUpdate::Refused { key, why } => {
                if let Some(desired) = state.desired.as_mut() {
                    desired.refuse(&key, PeerProblem::new("lease", why.clone()));
                }
                state.unreadable.insert(key, why);
            }
        }
    }

    /// Works everything out anew from this node's facts, and makes it so; whether it is.
    pub(super) async fn rebuild(&self, node: &Arc<Node>, state: &mut State) -> bool {
        let Some(cluster) = state.cluster.clone() else { return true };
        let local = match self.local(node, state, &cluster).await {
            Ok(local) => local,
            Err(error) => return self.cannot(node, &error),
        };
        let made = match &state.desired {
            Some(before) => before.with_local(local.clone()),
            None => first(local.clone(), state),
        };
        let desired = match made {
            Ok(desired) => desired,
            Err(problem) => return self.cannot(node, &LocalError::Backend(problem)),
        };
        // Peers and this node's lease key have to know what it is like now.
        self.membership.announce(desired.announce());
        if local.subnets.is_empty() {
            return true;
        }
        let mtu = desired.local_plan().mtu;
        state.desired = Some(desired);
        state.settled = false;
        state.withheld = !self.publish_pools(node, &local, mtu).await;
        self.compare(node, state).await && !state.withheld
    }

    /// The node's subnets become its network's pools, but for docker0's, and are subnet_env to
    /// others on the node; whether that is done.
    async fn publish_pools(&self, node: &Arc<Node>, local: &Local, mtu: u32) -> bool {
        let name = &self.settings.network;
        let shares = self.share(node, &local.subnets).await;
        let leased = Leased {
            cluster: local.cluster.networks().collect(),
            mtu: Some(mtu),
            docker0: shares.docker0.iter().flat_map(Subnets::iter).collect(),
        };
        let subnets: Vec<_> = shares.pods.iter().flat_map(Subnets::iter).collect();
        let given = node.lease_pools(name, &subnets, leased).await;
        match &given {
            Ok(()) => node.health.good("overlay/pools"),
            Err(error) => node.health.bad("overlay/pools", error),
        }
        let done = given.is_ok() && shares.whole;
        let Some(path) = &self.settings.subnet_file else { return done };
        let Some(subnet_env) = shares.subnet_env else {
            // docker0 waits for a subnet: it must not be subnet_env that of the pods meanwhile.
            if self.settings.docker0
                && let Err(why) = subnet_file::remove(path)
            {
                node.health.advise("overlay/subnet-file", why);
            }
            return done;
        };
        let masquerade = node.state.network(name).is_some_and(|n| n.network.masquerade);
        match subnet_file::write(path, &subnet_file::contents(local, subnet_env, mtu, masquerade)) {
            Ok(()) => node.health.good("overlay/subnet-file"),
            Err(why) => node.health.advise("overlay/subnet-file", why),
        }
        done
    }

    fn cannot(&self, node: &Node, error: &LocalError) -> bool {
        node.health.bad("overlay", error);
        false
    }

    /// Peers that can't be routed to for what their leases say: shown; nothing that this
    /// node could repair.
    pub(super) fn show_peers(&self, node: &Node, state: &State) {
        let Some(desired) = &state.desired else { return };
        let mut problems = desired.problems();
        let Some((key, first)) = problems.next() else {
            return node.health.forget("overlay/leases");
        };
        let more = problems.count();
        let rest =
            if more > 0 { format!(", and {more} more: `netd node list`") } else { String::new() };
        node.health.advise("overlay/leases", format!("{key}: {first}{rest}"));
    }
}

/// What follows from all that is known.
fn first(local: Local, state: &State) -> Result<Desired, PeerProblem> {
    let mut desired = Desired::new(local)?;
    let mut peers: Vec<_> = state.peers.iter().collect();
    peers.sort_by_key(|(_, peer)| peer.created);
    for (key, peer) in peers {
        desired.set(key, peer.lease.clone());
    }
    for (key, why) in &state.unreadable {
        desired.refuse(key, PeerProblem::new("lease", why.clone()));
    }
    Ok(desired)
}

/// Of leases that contradict each other the older one counts, on every node; those that
/// come later are newer.
fn oldest_first(mut updates: Vec<PeerUpdate>) -> Vec<PeerUpdate> {
    // What goes makes room first.
    updates.sort_by_key(|update| match update {
        PeerUpdate::Removed { .. } => 0,
        PeerUpdate::Set { created, .. } => *created,
        PeerUpdate::Refused { .. } => i64::MAX,
    });
    updates
}
