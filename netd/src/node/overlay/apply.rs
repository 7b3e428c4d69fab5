//! Applies what is wanted to the kernel and to the tunnel process.

use std::{collections::HashSet, sync::Arc, time::Instant};

use super::{
    command,
    core::{ClusterModel, Overlay},
    local_node::LocalNode,
    malloc_trim,
};
use netd_cluster::{backend::Command, desired::Delta};
use netd_dataplane::{OverlayReport, OverlaySubject, Repair};
use netd_domain::overlay::{OverlayChange, OverlayState};

impl Overlay {
    /// Full sync: reads this node's addresses and devices again, since they may have changed,
    /// then dumps, compares and applies everything. Returns whether all is as wanted.
    pub(in crate::node) async fn reconcile(&self, node: &dyn LocalNode) -> bool {
        let mut state = self.state.lock().await;
        if self.facts_changed(node, &mut state).await || state.withheld || state.renew_identity {
            self.rebuild(node, &mut state).await
        } else {
            self.compare(node, &mut state).await
        }
    }

    async fn facts_changed(&self, node: &dyn LocalNode, state: &mut ClusterModel) -> bool {
        let Some(cluster) = state.cluster.clone() else { return false };
        let before = state.desired.as_ref().map(|desired| desired.local().clone());
        match self.local(node, state, &cluster).await {
            Ok(local) => before.is_none_or(|before| before != local),
            // The rebuild reports the reason.
            Err(_) => true,
        }
    }

    /// Compares everything with the kernel and applies the difference; returns whether all
    /// is as wanted.
    pub(super) async fn compare(&self, node: &dyn LocalNode, state: &mut ClusterModel) -> bool {
        let Some(desired) = &state.desired else { return true };
        // Until all peers are known, an unknown object may belong to one of them.
        let wanted = Arc::new(OverlayState { partial: !state.complete, ..desired.state() });
        // The tunnels come first: they make devices that the rest needs.
        state.tunnel_problem = self.all_tunnels(node, desired, state.complete).await.err();
        let drift = state.settled;
        let (begun, objects) = (Instant::now(), wanted.objects.len());
        let synced = node.dataplane().sync_overlay(wanted).await;
        malloc_trim::trim_later(objects);
        node.metrics().overlay_synced(begun.elapsed());
        node.overlay_compared();
        match synced {
            Ok(report) => {
                count(node, &report.repairs, drift);
                state.refused.clear();
                let right = self.report(node, state, report);
                self.post_startup(node, state).await;
                state.settled = true;
                right
            }
            Err(error) => {
                node.health().bad("overlay", &error);
                false
            }
        }
    }

    /// Applies a change without comparing the rest; returns whether it succeeded.
    pub(super) async fn apply(
        &self,
        node: &dyn LocalNode,
        state: &mut ClusterModel,
        deltas: Vec<Delta>,
    ) -> bool {
        let mut change = OverlayChange::default();
        for delta in deltas {
            if let Some(desired) = &state.desired
                && let Err(why) = self.change_tunnels(desired, &delta).await
            {
                state.tunnel_problem = Some(why);
            }
            for command in &delta.commands {
                if let Err(why) = command::run(command).await {
                    tracing::warn!(%why, "a command of the extension backend failed: {why}");
                    node.health().advise("overlay/command", why);
                }
                state.commanded.insert(command.clone());
            }
            join(&mut change, delta.kernel);
        }
        for object in change.add.iter().chain(&change.remove) {
            state.refused.remove(&OverlaySubject::Object(object.clone()));
        }
        if change == OverlayChange::default() {
            return self.report(node, state, OverlayReport::default());
        }
        match node.dataplane().change_overlay(change).await {
            Ok(report) => self.report(node, state, report),
            Err(error) => {
                node.health().bad("overlay", &error);
                false
            }
        }
    }

    /// Reports what the kernel and the tunnels refused; returns whether that is nothing.
    fn report(&self, node: &dyn LocalNode, state: &mut ClusterModel, done: OverlayReport) -> bool {
        for (subject, error) in done.refused {
            state.refused.insert(subject, error.to_string());
        }
        // Everything else needs its device, so a device's problem is the one to report.
        let is_device = |what: &OverlaySubject| matches!(what, OverlaySubject::Device(_));
        let first = state.refused.iter().max_by_key(|(what, _)| is_device(what));
        let first = first.map(|(_, why)| why.clone());
        let count = state.refused.len();
        let (desired, failed) = self.programmed(state);
        node.metrics().set_overlay_peers(desired, failed);
        let problem = match (&state.tunnel_problem, first) {
            (Some(why), _) => format!("netd-tunnel: {why}"),
            (None, Some(first)) if count > 1 => format!("{first}, and {} more", count - 1),
            (None, Some(first)) => first,
            (None, None) => {
                node.health().good("overlay");
                return true;
            }
        };
        node.health().bad("overlay", problem);
        false
    }

    /// Runs the extension backend's second command once this node has its subnet, then the
    /// commands of the peers known before. Those of later peers run with their leases.
    async fn post_startup(&self, node: &dyn LocalNode, state: &mut ClusterModel) {
        let Some(desired) = &state.desired else { return };
        let line = desired.local_plan().post_startup.clone();
        let commands: HashSet<Command> = desired.commands().cloned().collect();
        let started = std::mem::replace(&mut state.post_started, true);
        if let Some(line) = line.filter(|_| !started) {
            match command::run(&line).await {
                Ok(output) => {
                    tracing::info!(%output, "PostStartupCommand of the extension backend printed: {output}")
                }
                Err(why) => {
                    node.health().advise("overlay/command", format!("PostStartupCommand: {why}"));
                }
            }
        }
        state.commanded.retain(|command| commands.contains(command));
        for command in commands {
            if state.commanded.contains(&command) {
                continue;
            }
            if let Err(why) = command::run(&command).await {
                node.health().advise("overlay/command", why);
            }
            state.commanded.insert(command);
        }
    }
}

/// Logs and counts repairs; those that follow from netd's own changes are not drift.
fn count(node: &dyn LocalNode, repairs: &[Repair], drift: bool) {
    /// Of more repairs only the number is logged.
    const MAX_LOGGED: usize = 20;
    if repairs.len() <= MAX_LOGGED {
        return node.count_repairs(repairs, drift);
    }
    let verb = if drift { "put back" } else { "made" };
    tracing::info!(
        object = "overlay",
        count = repairs.len(),
        drift,
        "{verb} {} objects of the overlay",
        repairs.len()
    );
    for repair in repairs.iter().filter(|_| drift) {
        node.metrics().drift_repaired(repair.kind.name(), 1);
    }
}

/// Adds a later change to an earlier one.
fn join(first: &mut OverlayChange, then: OverlayChange) {
    first.add.retain(|object| !then.remove.contains(object));
    first.remove.retain(|object| !then.add.contains(object));
    first.add.extend(then.add);
    first.remove.extend(then.remove);
    first.set_wireguard.retain(|(device, peer)| {
        !then.remove_wireguard.iter().any(|(d, key)| d == device && *key == peer.public_key)
    });
    first.remove_wireguard.retain(|(device, key)| {
        !then.set_wireguard.iter().any(|(d, peer)| d == device && peer.public_key == *key)
    });
    first.set_wireguard.extend(then.set_wireguard);
    first.remove_wireguard.extend(then.remove_wireguard);
}
