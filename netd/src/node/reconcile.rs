//! The level-triggered loop: whatever may differ is read from the kernel, compared with
//! what is wanted, and repaired. The start, drift and retries all go this way.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet};

use super::{
    core::Node,
    error::{Error, Result},
    liveness::EVENTS,
    networks::owned_by_docker,
    pod_netns::own_netns,
    queue::Target,
    state::KernelStatus,
};
use netd_dataplane::{DataplaneError, Drift, Netns, Repair, RepairKind};
use netd_domain::{Endpoint, EndpointKey, IfName, NetworkName, NetworkWiring, Phase, RepairScope};

impl Node {
    /// Turns the kernel's events into targets, until netd ends.
    pub(super) async fn follow_drift(self: Arc<Self>, mut drift: UnboundedReceiver<Drift>) {
        while let Some(event) = drift.recv().await {
            match event {
                Drift::Endpoint(host) => {
                    if let Some(key) = self.state.key_by_host_ifname(&host) {
                        self.queue.soon(Target::Endpoint(key));
                    }
                }
                Drift::Pod(host, kind) => self.follow_pod(&host, kind),
                Drift::Network(bridge) => {
                    for state in self.state.networks() {
                        let wired = state.wiring.bridge.as_ref();
                        if wired.is_some_and(|b| b.name == bridge) {
                            self.queue.soon(Target::Network(state.network.name.clone()));
                        }
                    }
                }
                Drift::Firewall => self.queue.soon(Target::Firewall),
                Drift::HostAddresses => self.queue.soon(Target::HostAddresses),
                Drift::Underlay => {
                    self.queue.soon(Target::Underlay);
                    self.queue.soon(Target::Overlay);
                }
                Drift::Overlay => self.queue.soon(Target::Overlay),
                Drift::Sysctl | Drift::Docker0 => {
                    if event == Drift::Docker0 {
                        self.queue.soon(Target::Overlay);
                    }
                    for state in self.state.networks() {
                        self.queue.soon(Target::Network(state.network.name.clone()));
                    }
                }
                Drift::Everything => self.queue.soon(Target::Everything),
            }
        }
        self.health.break_down(EVENTS, "the thread netd-events has ended");
    }

    /// Something changed inside a pod. That is put back only if the network says so; else it is
    /// counted, and the host's side follows.
    fn follow_pod(&self, host: &IfName, kind: RepairKind) {
        let Some(key) = self.state.key_by_host_ifname(host) else { return };
        let Some((endpoint, _)) = self.state.endpoint(&key) else { return };
        if endpoint.phase != Phase::Attached {
            return;
        }
        let repairs = self.repair_scope(&endpoint.network) == RepairScope::Pod;
        if !repairs {
            self.metrics.pod_changed(kind.name());
        }
        if repairs || matches!(kind, RepairKind::Link | RepairKind::Neighbour) {
            self.queue.soon(Target::Endpoint(key));
        }
    }

    /// What the network wants to have put back.
    pub(super) fn repair_scope(&self, network: &NetworkName) -> RepairScope {
        self.state.network(network).map(|state| state.network.repair).unwrap_or_default()
    }

    /// Repairs targets when they are due, until netd ends. One that hangs or fails does not
    /// delay the others.
    pub(super) async fn reconcile_forever(self: Arc<Self>) {
        /// The kernel works on one change at a time anyway (rtnl).
        const MAX_REPAIRS: usize = 16;
        let mut running = JoinSet::new();
        loop {
            for (target, failures) in self.queue.next().await {
                while running.len() >= MAX_REPAIRS {
                    running.join_next().await;
                }
                let node = self.clone();
                running.spawn(async move { node.repair(target, failures).await });
            }
            while running.try_join_next().is_some() {}
        }
    }

    async fn repair(self: Arc<Self>, target: Target, failures: u32) {
        let result = match &target {
            Target::Endpoint(key) => self.repair_endpoint(key).await,
            Target::Network(name) => self.repair_network(name).await,
            Target::Firewall => self.repair_firewall().await,
            Target::HostAddresses => self.follow_host_addresses().await,
            Target::Underlay => self.follow_underlay().await,
            Target::Overlay => self.repair_overlay(failures).await,
            Target::Everything => self.repair_everything().await,
        };
        if let Err(Error::NotPlaced(_)) = result {
            // The link's carrier comes up when the runtime is done. This retry is for the
            // case that its event was lost.
            self.queue.later(target, failures);
        } else if let Err(error) = result {
            tracing::warn!(?target, failures, %error,
                "{target} could not be repaired: {error}; trying again");
            self.queue.later(target, failures);
        }
    }

    /// The overlay itself reports what it could not do; here it is only tried again.
    async fn repair_overlay(self: &Arc<Self>, failures: u32) -> Result<()> {
        if let Ok(overlay) = self.overlay()
            && !overlay.reconcile(&**self).await
        {
            self.queue.later(Target::Overlay, failures);
        }
        Ok(())
    }

    async fn repair_everything(&self) -> Result<()> {
        self.queue.soon(Target::Underlay);
        self.queue.soon(Target::Overlay);
        for state in self.state.networks() {
            self.queue.soon(Target::Network(state.network.name.clone()));
        }
        self.queue.soon(Target::Firewall);
        self.queue.soon(Target::HostAddresses);
        for (endpoint, _) in self.state.endpoints() {
            self.queue.soon(Target::Endpoint(endpoint.key.clone()));
        }
        Ok(())
    }

    /// Repairs one endpoint. One whose namespace is gone is left to garbage collection.
    async fn repair_endpoint(&self, key: &EndpointKey) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, status)) = self.state.endpoint(key) else { return Ok(()) };
        if endpoint.phase != Phase::Attached {
            return Ok(());
        }
        if status == KernelStatus::Unwanted {
            return self.begin_detach(&endpoint, endpoint.issued_at).await;
        }
        if endpoint.runtime_placed.is_some() {
            return self.locate(&endpoint).await.map(drop);
        }
        let Some(netns) = own_netns(&endpoint)? else {
            // No path leads to it. If its host link is there it lives all the same, and what
            // is in it is as it was.
            if self.lives(&endpoint).await? {
                self.state.set_status(key, KernelStatus::Attached);
                return Ok(());
            }
            tracing::debug!(endpoint = %key, "the network namespace of {key} is gone");
            return Ok(());
        };
        self.repair_locked(&endpoint, netns).await.map(|_| ())
    }

    /// Compares the endpoint with the kernel and repairs what its network says. The caller holds
    /// the key's lock.
    pub(super) async fn repair_locked(
        &self,
        endpoint: &Arc<Endpoint>,
        netns: Arc<Netns>,
    ) -> Result<Vec<Repair>> {
        let endpoint = &self.follow_mac(endpoint, &netns).await?;
        let (wiring, scope) = (endpoint.wiring.clone(), self.repair_scope(&endpoint.network));
        let repaired = self.dataplane.repair(netns.clone(), wiring, scope).await;
        if repaired.as_ref().is_ok_and(|repairs| !repairs.is_empty()) {
            // The pair may have been made again, or has another MAC or bridge.
            self.announce(endpoint, netns);
        }
        self.note_repairs(endpoint, repaired)
    }

    /// As [`Node::repair_locked`], for a runtime that asks for the endpoint: what is missing in
    /// the sandbox is made, too.
    pub(super) async fn complete_locked(
        &self,
        endpoint: &Arc<Endpoint>,
        netns: Arc<Netns>,
    ) -> Result<Vec<Repair>> {
        let repaired = self.dataplane.complete(netns.clone(), endpoint.wiring.clone()).await;
        self.announce(endpoint, netns);
        self.note_repairs(endpoint, repaired)
    }

    fn note_repairs(
        &self,
        endpoint: &Arc<Endpoint>,
        repaired: Result<Vec<Repair>, DataplaneError>,
    ) -> Result<Vec<Repair>> {
        let component = format!("endpoint/{}", endpoint.key);
        let was_right =
            self.state.endpoint(&endpoint.key).is_some_and(|(_, w)| w == KernelStatus::Attached);
        match repaired {
            Ok(repairs) => {
                self.state.set_status(&endpoint.key, KernelStatus::Attached);
                self.health.forget(&component);
                self.count(
                    &endpoint.key,
                    &Target::Endpoint(endpoint.key.clone()),
                    &repairs,
                    was_right,
                );
                Ok(repairs)
            }
            Err(error) => {
                // That its namespace went away meanwhile is not a problem of the endpoint.
                if !matches!(own_netns(endpoint), Ok(None)) {
                    self.state.set_status(&endpoint.key, KernelStatus::Failed(error.to_string()));
                    self.health.advise(&component, &error);
                }
                Err(error.into())
            }
        }
    }

    /// Logs and counts repairs. `drift`: the kernel matched before, so another program changed
    /// it. Of a target that is fought over, [`Node::tell_of_fights_forever`] logs.
    pub(super) fn count(
        &self,
        what: &dyn std::fmt::Display,
        target: &Target,
        repairs: &[Repair],
        drift: bool,
    ) {
        let drift = drift && self.started.load(Ordering::Relaxed);
        let fought = drift && !repairs.is_empty() && self.queue.is_fought_over(target);
        for repair in repairs {
            let (kind, detail) = (repair.kind.name(), &repair.detail);
            if drift && fought {
                self.metrics.drift_repaired(kind, 1);
            } else if drift {
                tracing::warn!(object = %what, kind, detail, "put back the {kind} of {what}: {detail}");
                self.metrics.drift_repaired(kind, 1);
            } else {
                tracing::info!(object = %what, kind, detail, "made the {kind} of {what}: {detail}");
            }
        }
    }

    /// Puts one network right.
    pub(super) async fn repair_network(&self, name: &NetworkName) -> Result<()> {
        // Not while it is being created or deleted: a bridge could be made after it.
        let _topology = self.network_changes.lock().await;
        self.repair_network_locked(name).await
    }

    /// As [`Node::repair_network`]; the caller holds `network_changes`.
    pub(super) async fn repair_network_locked(&self, name: &NetworkName) -> Result<()> {
        let Some(state) = self.state.network(name) else { return Ok(()) };
        self.check_docker0(name, state.wiring.clone()).await?;
        let state = self.withhold(state).await?;
        match self.dataplane.ensure_network(state.wiring.clone()).await {
            Ok(repairs) => {
                self.note_in_force(name, &state.wiring.subnets);
                match self.withheld(name) {
                    Some(why) => self.network_problem(name, &why),
                    None => self.health.good(&format!("network/{name}")),
                }
                let drift = !self.changed.lock().remove(name);
                self.count(name, &Target::Network(name.clone()), &repairs, drift);
                if !repairs.is_empty() {
                    // A bridge that was made again has lost its ports.
                    for (endpoint, _) in self.state.endpoints() {
                        if endpoint.network == *name {
                            self.queue.soon(Target::Endpoint(endpoint.key.clone()));
                        }
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.network_problem(name, &error);
                Err(error.into())
            }
        }
    }

    /// Without a network of its configuration the node is not ready.
    fn network_problem(&self, name: &NetworkName, problem: &dyn std::fmt::Display) {
        let component = format!("network/{name}");
        if self.config.networks.iter().any(|n| n.name == *name) {
            self.health.bad(&component, problem);
        } else {
            self.health.advise(&component, problem);
        }
    }

    /// A subnet that docker0 has since the network was created: its pods go on, new ones
    /// are refused, and the status says what is wrong.
    async fn check_docker0(&self, name: &NetworkName, wiring: Arc<NetworkWiring>) -> Result<()> {
        let component = format!("docker0/{name}");
        match self.dataplane.owned_by_docker(wiring).await? {
            Some(taken) => {
                self.docker0.lock().insert(name.clone(), taken);
                self.health.advise(&component, owned_by_docker(name, &taken));
            }
            None => {
                self.docker0.lock().remove(name);
                self.health.forget(&component);
            }
        }
        Ok(())
    }
}
