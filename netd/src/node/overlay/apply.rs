//! What is wanted becomes what the kernel and the tunnel process hold.

use std::{collections::HashSet, sync::Arc, time::Instant};

use super::{Overlay, State, command, malloc_trim};
use crate::node::core::Node;
use netd_cluster::{backend::Command, desired::Delta};
use netd_dataplane::{OverlayReport, OverlaySubject, Repair};
use netd_domain::overlay::{OverlayChange, OverlayState};

impl Overlay {
    /// Whatever may differ is compared as a whole and put right; this node's facts are
    /// read again first, since an address or a device may have changed.
    /// Whether all is as it has to be then.
    pub(in crate::node) async fn repair(&self, node: &Arc<Node>) -> bool {
        let mut state = self.state.lock().await;
        if self.facts_changed(node, &mut state).await || state.withheld {
            self.rebuild(node, &mut state).await
        } else {
            self.compare(node, &mut state).await
        }
    }

    async fn facts_changed(&self, node: &Node, state: &mut State) -> bool {
        let Some(cluster) = state.cluster.clone() else { return false };
        let before = state.desired.as_ref().map(|desired| desired.local().clone());
        match self.local(node, state, &cluster).await {
            Ok(local) => before.is_none_or(|before| before != local),
            // Worked out anew, it says why.
            Err(_) => true,
        }
    }

    /// Compares the whole with what is there; whether it is as it has to be then.
    pub(super) async fn compare(&self, node: &Arc<Node>, state: &mut State) -> bool {
        let Some(desired) = &state.desired else { return true };
        // Before all peers are known, what is beyond them may be one of them.
        let wanted = Arc::new(OverlayState { partial: !state.complete, ..desired.state() });
        // The tunnels first: they make devices that the rest needs.
        state.tunnel_problem = self.all_tunnels(desired, state.complete).await.err();
        let drift = state.settled;
        let (begun, objects) = (Instant::now(), wanted.objects.len());
        let synced = node.dataplane.sync_overlay(wanted).await;
        malloc_trim::trim_later(objects);
        node.metrics.overlay_synced(begun.elapsed());
        match synced {
            Ok(report) => {
                count(node, &report.repairs, drift);
                state.refused.clear();
                let right = self.judge(node, state, report);
                self.post_startup(node, state).await;
                state.settled = true;
                right
            }
            Err(error) => {
                node.health.bad("overlay", &error);
                false
            }
        }
    }

    /// Makes a change where the rest is as it was; whether that could be done.
    pub(super) async fn apply(
        &self,
        node: &Arc<Node>,
        state: &mut State,
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
                    tracing::warn!(%why, "a command of the extension backend failed");
                    node.health.advise("overlay/command", why);
                }
                state.commanded.insert(command.clone());
            }
            join(&mut change, delta.kernel);
        }
        for object in change.add.iter().chain(&change.remove) {
            state.refused.remove(&OverlaySubject::Object(object.clone()));
        }
        if change == OverlayChange::default() {
            return self.judge(node, state, OverlayReport::default());
        }
        match node.dataplane.change_overlay(change).await {
            Ok(report) => self.judge(node, state, report),
            Err(error) => {
                node.health.bad("overlay", &error);
                false
            }
        }
    }

    /// Shows what could not be done; whether all could.
    fn judge(&self, node: &Node, state: &mut State, report: OverlayReport) -> bool {
        for (subject, error) in report.refused {
            state.refused.insert(subject, error.to_string());
        }
        // Without its device nothing else can be: that is what has to be said.
        let is_device = |what: &OverlaySubject| matches!(what, OverlaySubject::Device(_));
        let first = state.refused.iter().max_by_key(|(what, _)| is_device(what));
        let first = first.map(|(_, why)| why.clone());
        let count = state.refused.len();
        let (desired, failed) = self.programmed(state);
        node.metrics.set_overlay_peers(desired, failed);
        let problem = match (&state.tunnel_problem, first) {
            (Some(why), _) => format!("netd-tunnel: {why}"),
            (None, Some(first)) if count > 1 => format!("{first}, and {} more", count - 1),
            (None, Some(first)) => first,
            (None, None) => {
                node.health.good("overlay");
                return true;
            }
        };
        node.health.bad("overlay", problem);
        false
    }

    /// Runs the extension backend's second command once this node has its subnet, then
    /// those about peers that were there before; later ones come with their leases.
    async fn post_startup(&self, node: &Node, state: &mut State) {
        let Some(desired) = &state.desired else { return };
        let line = desired.local_plan().post_startup.clone();
        let commands: HashSet<Command> = desired.commands().cloned().collect();
        let started = std::mem::replace(&mut state.post_started, true);
        if let Some(line) = line.filter(|_| !started) {
            match command::run(&line).await {
                Ok(output) => tracing::info!(%output, "PostStartupCommand"),
                Err(why) => {
                    node.health.advise("overlay/command", format!("PostStartupCommand: {why}"));
                }
            }
        }
        state.commanded.retain(|command| commands.contains(command));
        for command in commands {
            if state.commanded.contains(&command) {
                continue;
            }
            if let Err(why) = command::run(&command).await {
                node.health.advise("overlay/command", why);
            }
            state.commanded.insert(command);
        }
    }
}

/// Counts what was done; what netd itself changed is no drift.
fn count(node: &Node, repairs: &[Repair], drift: bool) {
    /// Of many only their number is logged.
    const MOST: usize = 20;
    if repairs.len() <= MOST {
        return node.count(&"overlay", repairs, drift);
    }
    tracing::info!(object = "overlay", count = repairs.len(), drift, "made");
    for repair in repairs.iter().filter(|_| drift) {
        node.metrics.drift_repaired(repair.kind.name(), 1);
    }
}

/// Puts a later change after an earlier one.
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
