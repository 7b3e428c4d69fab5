//! Updates of the cluster: what is wanted changes, and the difference is applied.

use std::time::Instant;

use super::{
    core::{ClusterModel, Overlay, PeerLease},
    local::LocalError,
    local_node::LocalNode,
    subnet_file,
};
use netd_cluster::{
    Local, Subnets,
    backend::PeerProblem,
    desired::{Delta, Desired},
    membership::{PeerUpdate, Update},
};
use netd_domain::network::Leased;

/// What a batch of updates requires.
#[derive(Debug, Default)]
struct Consequence {
    /// This node changed: everything is computed again.
    rebuild: bool,
    /// All peers are known now: unknown objects can be removed.
    whole: bool,
    deltas: Vec<Delta>,
}

impl Overlay {
    /// Notes a batch of updates and acts on it.
    pub(super) async fn on_update(&self, node: &dyn LocalNode, news: Vec<Update>) {
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
            node.metrics().overlay_converged(heard.elapsed());
            right
        } else {
            true
        };
        if !right {
            node.retry_overlay();
        }
    }

    fn note(
        &self,
        node: &dyn LocalNode,
        state: &mut ClusterModel,
        update: Update,
        then: &mut Consequence,
    ) {
        match update {
            Update::Config(cluster) => {
                node.health().good("overlay/config");
                then.rebuild |= state.cluster.as_ref() != Some(&cluster);
                state.cluster = Some(cluster);
            }
            Update::ConfigProblem(why) if state.cluster.is_some() => {
                node.health()
                    .advise("overlay/config", format!("{why}; the one before is in force"));
            }
            Update::ConfigProblem(why) => node.health().bad("overlay/config", why),
            Update::Own(own) => {
                if !own.is_empty() {
                    node.health().good("overlay/subnet");
                }
                then.rebuild |= state.own != own;
                state.own = own;
                self.own_changed.notify_waiters();
            }
            Update::NoSubnet(why) if state.own.is_empty() => {
                node.health().bad("overlay/subnet", why)
            }
            Update::NoSubnet(why) => node.health().advise("overlay/subnet", why),
            Update::Lost(subnets) => {
                let listed: Vec<_> = subnets.iter().map(|net| net.to_string()).collect();
                let text = format!(
                    "{} went to another node: pods with addresses of it reach nothing outside \
                     of this node; delete them",
                    listed.join(", ")
                );
                node.health().advise("overlay/lost", text);
            }
            Update::Peers(updates) => {
                for update in oldest_first(updates) {
                    self.note_peer(state, update, then);
                }
            }
            Update::Synced => {
                node.health().good("etcd");
                then.whole |= !state.complete;
                state.complete = true;
            }
            Update::Behind { since, why } => {
                let since = humantime::format_rfc3339_seconds(
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(since),
                );
                let text = format!("behind since {since}: {why}; what was known is in force");
                node.health().advise("etcd", text);
                // netd started without etcd: what it remembers has to do.
                then.whole |= !state.complete;
            }
            Update::CaughtUp => node.health().good("etcd"),
        }
    }

    fn note_peer(&self, state: &mut ClusterModel, update: PeerUpdate, then: &mut Consequence) {
        match update {
            PeerUpdate::Set { key, lease, created, since, .. } => {
                state.unreadable.remove(&key);
                if let Some(desired) = state.desired.as_mut() {
                    then.deltas.push(desired.set(&key, lease.clone()));
                }
                state.peers.insert(key, PeerLease { lease, created, since });
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

    /// Computes everything again from this node's addresses, devices and subnets, and applies
    /// it; returns whether all is as wanted.
    pub(super) async fn rebuild(&self, node: &dyn LocalNode, state: &mut ClusterModel) -> bool {
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
        // The lease has to say what this node is like now.
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

    /// Makes the node's subnets the pools of its network, except for docker0's, and writes
    /// `subnet.env`; returns whether all of that succeeded.
    async fn publish_pools(&self, node: &dyn LocalNode, local: &Local, mtu: u32) -> bool {
        let name = &self.settings.network;
        let shares = self.share(node, &local.subnets).await;
        let leased = Leased {
            cluster: local.cluster.networks().collect(),
            mtu: Some(mtu),
            docker0: shares.docker0.iter().flat_map(Subnets::iter).collect(),
        };
        let subnets: Vec<_> = shares.pods.iter().flat_map(Subnets::iter).collect();
        let given = node.set_pools(name, &subnets, leased).await;
        match &given {
            Ok(()) => node.health().good("overlay/pools"),
            Err(error) => node.health().bad("overlay/pools", error),
        }
        let done = given.is_ok() && shares.complete;
        let Some(path) = &self.settings.subnet_file else { return done };
        let Some(subnet_env) = shares.subnet_env else {
            // docker0 waits for a subnet: the file must not name one of the pods' meanwhile.
            if self.settings.docker0
                && let Err(why) = subnet_file::remove(path)
            {
                node.health().advise("overlay/subnet-file", why);
            }
            return done;
        };
        let masquerade = node.network(name).is_some_and(|n| n.network.masquerade);
        match subnet_file::write(path, &subnet_file::contents(local, subnet_env, mtu, masquerade)) {
            Ok(()) => node.health().good("overlay/subnet-file"),
            Err(why) => node.health().advise("overlay/subnet-file", why),
        }
        done
    }

    fn cannot(&self, node: &dyn LocalNode, error: &LocalError) -> bool {
        node.health().bad("overlay", error);
        false
    }

    /// Reports peers that can't be reached because of what their leases say, which this node
    /// can't change.
    pub(super) fn show_peers(&self, node: &dyn LocalNode, state: &ClusterModel) {
        let Some(desired) = &state.desired else { return };
        let mut problems = desired.problems();
        let Some((key, first)) = problems.next() else {
            return node.health().forget("overlay/leases");
        };
        let more = problems.count();
        let rest =
            if more > 0 { format!(", and {more} more: `netd node list`") } else { String::new() };
        node.health().advise("overlay/leases", format!("{key}: {first}{rest}"));
    }
}

/// Computes what is wanted from all that is known.
fn first(local: Local, state: &ClusterModel) -> Result<Desired, PeerProblem> {
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

/// Sorts updates so that of two leases that clash the older one is in force, as on every
/// node.
fn oldest_first(mut updates: Vec<PeerUpdate>) -> Vec<PeerUpdate> {
    // Removed leases make room first.
    updates.sort_by_key(|update| match update {
        PeerUpdate::Removed { .. } => 0,
        PeerUpdate::Set { created, .. } => *created,
        PeerUpdate::Refused { .. } => i64::MAX,
    });
    updates
}
