//! Updates of the cluster: what is wanted changes, and the difference is applied.

use std::time::Instant;

use ipnet::IpNet;

use super::{
    core::{ClusterModel, Overlay, PeerLease},
    local::LocalError,
    local_node::LocalNode,
    subnet_file,
};
use crate::node::listed::listed;
use netd_cluster::{
    ClusterConfig, Local, Subnets,
    backend::PeerProblem,
    desired::{Delta, Desired},
    identity,
    membership::{IdentityUpdate, PeerUpdate, Update},
};
use netd_domain::{HostNetwork, network::Leased};

/// What a batch of updates requires.
#[derive(Debug, Default)]
struct Consequence {
    /// This node changed: everything is computed again.
    rebuild: bool,
    /// All peers are known now: unknown objects can be removed.
    whole: bool,
    /// Peers must know this node by other keys than before.
    new_identity: bool,
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
        state.renew_identity |= then.new_identity;
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
                then.rebuild |= state.own != own || !state.own_known;
                (state.own, state.own_known) = (own, true);
                let own = |subnets: &Subnets| state.own.iter().any(|o| o.subnets == *subnets);
                state.retiring.retain(own);
                state.lost.retain(|subnets| !own(subnets));
                show_lost(node, state);
                self.own_changed.notify_waiters();
            }
            Update::Addresses { v4, v6 } => {
                then.rebuild |= state.addresses != (v4, v6);
                state.addresses = (v4, v6);
            }
            Update::Identity(identity) => note_identity(node, identity, then),
            // An operator's typo about an address, which does not keep packets from their way.
            Update::Unreadable(Some(why)) if self.etcd.is_none() => {
                node.health().advise("overlay/lease", why);
            }
            Update::Unreadable(Some(why)) => node.health().bad("overlay/lease", why),
            Update::Unreadable(None) => node.health().good("overlay/lease"),
            Update::NoSubnet(why) if state.own.is_empty() => {
                node.health().bad("overlay/subnet", why)
            }
            Update::NoSubnet(why) => node.health().advise("overlay/subnet", why),
            Update::Lost(subnets) => {
                state.lost.push(subnets);
                show_lost(node, state);
            }
            Update::Peers(updates) => {
                for update in updates {
                    self.note_peer(state, update, then);
                }
            }
            Update::Synced => {
                node.health().good(self.source());
                then.whole |= !state.complete;
                state.complete = true;
            }
            Update::Behind { since, why } => {
                let since = humantime::format_rfc3339_seconds(
                    std::time::UNIX_EPOCH + std::time::Duration::from_secs(since),
                );
                let text = format!("behind since {since}: {why}; what was known is in force");
                node.health().advise(self.source(), text);
                // netd started without the cluster: what it remembers has to do.
                then.whole |= !state.complete;
            }
            Update::CaughtUp => node.health().good(self.source()),
        }
    }

    fn note_peer(&self, state: &mut ClusterModel, update: PeerUpdate, then: &mut Consequence) {
        match update {
            PeerUpdate::Set { key, lease, created, since, .. } => {
                state.unreadable.remove(&key);
                if let Some(desired) = state.desired.as_mut() {
                    then.deltas.push(desired.set(&key, created, lease.clone()));
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
        if state.own.is_empty() && state.own_known {
            state.withheld = !self.withdraw_pools(node).await;
        }
        // Nothing is announced by keys that another machine has.
        if state.renew_identity && !self.renew_identity(node).await {
            return false;
        }
        state.renew_identity = false;
        let Some(cluster) = state.cluster.clone() else { return true };
        let local = match self.local(node, state, &cluster).await {
            Ok(local) => local,
            Err(error) => return self.cannot(node, &error),
        };
        let desired = match self.want(node, state, local).await {
            Ok(desired) => desired,
            Err(error) => return self.cannot(node, &error),
        };
        match node.dataplane().host_networks().await {
            Ok(known) => self.membership.avoid(to_avoid(&cluster, &known)),
            Err(error) => return self.cannot(node, &LocalError::Dataplane(error)),
        }
        // The lease has to say what this node is like now.
        self.membership.announce(desired.announce());
        if desired.local().subnets.is_empty() {
            return !state.withheld;
        }
        let (local, mtu) = (desired.local().clone(), desired.local_plan().mtu);
        state.desired = Some(desired);
        state.settled = false;
        state.withheld = !self.publish_pools(node, &local, mtu).await;
        self.compare(node, state).await && !state.withheld
    }

    /// Computes what is wanted of this node; with flannel's MACs where this node takes its place.
    async fn want(
        &self,
        node: &dyn LocalNode,
        state: &ClusterModel,
        local: Local,
    ) -> Result<Desired, LocalError> {
        let desired = desired(local.clone(), state)?;
        match self.take_over_vteps(node, &desired).await? {
            Some(identity) => Ok(self::desired(Local { identity, ..local }, state)?),
            None => Ok(desired),
        }
    }

    /// Takes all pools from the network: what they were made of is not this node's. Returns
    /// whether they are gone.
    async fn withdraw_pools(&self, node: &dyn LocalNode) -> bool {
        let name = &self.settings.network;
        let Some(network) = node.network(name).map(|state| state.network) else { return true };
        if network.pools.is_empty() {
            return true;
        }
        let leased = network.leased.clone().unwrap_or_default();
        match node.set_pools(name, &[], Leased { docker0: vec![], ..leased }).await {
            Ok(()) => true,
            Err(error) => {
                node.health().bad("overlay/pools", error);
                false
            }
        }
    }

    /// Gives the node new keys; whether it has them.
    async fn renew_identity(&self, node: &dyn LocalNode) -> bool {
        let state_dir = node.config().state_dir.clone();
        let renewed = tokio::task::spawn_blocking(move || identity::renew(&state_dir)).await;
        match renewed.unwrap_or_else(|e| Err(std::io::Error::other(e))) {
            Ok(new) => {
                *self.identity.lock() = new;
                node.health().forget("overlay/keys");
                true
            }
            Err(error) => {
                node.health().bad("overlay/keys", error);
                false
            }
        }
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

/// The host's networks that no subnet of the cluster may overlap with. A route that is broader
/// than a node's subnet merely leads through.
fn to_avoid(cluster: &ClusterConfig, known: &[HostNetwork]) -> Vec<IpNet> {
    let longest = |net: &IpNet| match net {
        IpNet::V4(_) => cluster.v4.map_or(0, |range| range.subnet_len),
        IpNet::V6(_) => cluster.v6.map_or(0, |range| range.subnet_len),
    };
    let counts = |host: &&HostNetwork| {
        let least = if host.routed { longest(&host.net) } else { 1 };
        host.net.prefix_len() >= least
    };
    known.iter().filter(counts).map(|host| host.net.trunc()).collect()
}

/// Says which pods have addresses that went to another node, as long as there are some.
pub(super) fn show_lost(node: &dyn LocalNode, state: &mut ClusterModel) {
    const COMPONENT: &str = "overlay/lost";
    if state.lost.is_empty() {
        return node.health().forget(COMPONENT);
    }
    let used: Vec<_> = node.endpoints().iter().flat_map(|endpoint| endpoint.ips()).collect();
    let is_used =
        |subnets: &Subnets| subnets.iter().any(|net| used.iter().any(|ip| net.contains(ip)));
    state.lost.retain(is_used);
    if state.lost.is_empty() {
        return node.health().forget(COMPONENT);
    }
    let all = listed(state.lost.iter().flat_map(Subnets::iter));
    let text = format!(
        "{all} went to another node: pods with addresses of it reach nothing outside of this \
         node; delete them"
    );
    node.health().advise(COMPONENT, text);
}

fn note_identity(node: &dyn LocalNode, identity: IdentityUpdate, then: &mut Consequence) {
    const COMPONENT: &str = "overlay/identity";
    match identity {
        IdentityUpdate::Contested { in_use: true, why } => node.health().advise(COMPONENT, why),
        IdentityUpdate::Contested { in_use: false, why } => node.health().bad(COMPONENT, why),
        IdentityUpdate::Confirmed => node.health().good(COMPONENT),
        IdentityUpdate::Replaced { who, id } => {
            let text = format!(
                "{who} runs with the node id that this machine had: one is a copy of the other. \
                 This one has the new id {id}, new keys and subnets of its own. Copies of a \
                 machine should be made without netd's state_dir"
            );
            node.health().advise(COMPONENT, text);
            (then.new_identity, then.rebuild) = (true, true);
        }
        IdentityUpdate::Renamed { from, to } => {
            let text = format!(
                "this machine was Node {from} and is {to}: it was renamed, or is a copy of that one. \
                 It has new keys. Copies of a machine should be made without netd's state_dir"
            );
            node.health().advise(COMPONENT, text);
            (then.new_identity, then.rebuild) = (true, true);
        }
    }
}

/// Computes what is wanted from all that is known.
fn desired(local: Local, state: &ClusterModel) -> Result<Desired, PeerProblem> {
    if let Some(before) = &state.desired {
        return before.with_local(local);
    }
    let mut desired = Desired::new(local)?;
    for (key, peer) in &state.peers {
        desired.set(key, peer.created, peer.lease.clone());
    }
    for (key, why) in &state.unreadable {
        desired.refuse(key, PeerProblem::new("lease", why.clone()));
    }
    Ok(desired)
}
