//! The level-triggered loop: whatever may differ is read from the kernel, compared with
//! what is wanted, and repaired. The start, drift and retries all go this way.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet};

use super::{
    core::Node,
    error::{Error, Result},
    liveness::EVENTS,
    networks::owned_by_docker,
    pod_netns::own_netns,
    queue::Target,
    record::encode,
    state::KernelStatus,
};
use netd_dataplane::{Drift, Netns, Repair};
use netd_domain::{Endpoint, EndpointKey, NetworkName, NetworkWiring, Phase};
use netd_store::Store as _;

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
        // The events thread does not hear what the overlay's thread does.
        self.queue.soon(Target::HostAddresses);
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

    /// Compares the endpoint with the kernel and repairs it. The caller holds the key's lock.
    pub(super) async fn repair_locked(
        &self,
        endpoint: &Arc<Endpoint>,
        netns: Arc<Netns>,
    ) -> Result<Vec<Repair>> {
        let wiring = endpoint.wiring.clone();
        let component = format!("endpoint/{}", endpoint.key);
        let was_right =
            self.state.endpoint(&endpoint.key).is_some_and(|(_, w)| w == KernelStatus::Attached);
        match self.dataplane.repair(netns, wiring).await {
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
        let component = format!("network/{name}");
        self.check_docker0(name, state.wiring.clone()).await?;
        match self.dataplane.ensure_network(state.wiring).await {
            Ok(repairs) => {
                self.health.good(&component);
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
            // Without a network of its configuration the node is not ready.
            Err(error) if self.config.networks.iter().any(|n| n.name == *name) => {
                self.health.bad(&component, &error);
                Err(error.into())
            }
            Err(error) => {
                self.health.advise(&component, &error);
                Err(error.into())
            }
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

    /// Networks and endpoints without an MTU of their own follow the underlay's, or the
    /// overlay's. Looks at all of them, so that one that failed is done when this is
    /// called again.
    pub(super) async fn follow_underlay(&self) -> Result<()> {
        let underlay = self.dataplane.underlay_mtu().await?;
        let mut failed = None;
        let mut follow = std::collections::HashMap::new();
        {
            let _topology = self.network_changes.lock().await;
            for state in self.state.networks() {
                if state.network.mtu.is_some() {
                    continue;
                }
                let name = state.network.name.clone();
                let mtu = state.network.effective_mtu(underlay);
                if state.wiring.mtu != mtu {
                    tracing::info!(network = %name, from = state.wiring.mtu, to = mtu,
                        "network {name}: MTU changed from {} to {mtu}", state.wiring.mtu);
                    let wiring = Arc::new(state.network.wiring(mtu));
                    self.state.put_network(state.network.clone(), wiring);
                    self.changed.lock().insert(name.clone());
                    self.queue.soon(Target::Network(name.clone()));
                }
                follow.insert(name, mtu);
            }
        }
        for (endpoint, _) in self.state.endpoints() {
            if let Some(mtu) = follow.get(&endpoint.network).filter(|_| !endpoint.fixed_mtu) {
                failed = self.change_mtu(&endpoint.key, *mtu).await.err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn change_mtu(&self, key: &EndpointKey, mtu: u32) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, status)) = self.state.endpoint(key) else { return Ok(()) };
        if endpoint.phase != Phase::Attached || endpoint.wiring.mtu == mtu {
            return Ok(());
        }
        let mut changed = Endpoint::clone(&endpoint);
        Arc::make_mut(&mut changed.wiring).mtu = mtu;
        self.store.commit(encode::update(&changed)?).await?;
        // The kernel now differs from the record, and that is not drift.
        let status =
            if status == KernelStatus::Attached { KernelStatus::Attaching } else { status };
        self.state.update(Arc::new(changed), status);
        self.queue.soon(Target::Endpoint(key.clone()));
        Ok(())
    }

    /// Compares an endpoint with the kernel, changing nothing. `asked`: the namespace that
    /// the caller says it is in.
    ///
    /// # Errors
    /// [`Error::Differs`] names every difference.
    pub async fn check(
        &self,
        key: &EndpointKey,
        asked: Option<SandboxNetns>,
    ) -> Result<Arc<Endpoint>> {
        let found = self.state.endpoint(key).map(|(endpoint, _)| endpoint);
        let endpoint = found.filter(|e| e.phase == Phase::Attached);
        let endpoint = endpoint.ok_or_else(|| Error::NoEndpoint(key.clone()))?;
        let Some(own) = &endpoint.netns_path else { return Err(Error::NotPlaced(key.clone())) };
        let name = asked.as_ref().map(|asked| asked.path.display().to_string());
        let netns = match asked {
            Some(SandboxNetns { path, descriptor: Some(descriptor) }) => {
                Netns::from_descriptor(descriptor, &path)?
            }
            Some(SandboxNetns { path, descriptor: None }) => Netns::open(&path)?,
            None => Netns::open(own)?,
        };
        if !endpoint.netns.is_some_and(|own| own.is_same(&netns.id())) {
            return Err(Error::WrongNetns {
                key: key.clone(),
                asked: name.unwrap_or_else(|| "its namespace".to_owned()),
                have: own.display().to_string(),
            });
        }
        let wiring = endpoint.wiring.clone();
        let differences = self.dataplane.check(Arc::new(netns), wiring).await?;
        if differences.is_empty() {
            return Ok(endpoint);
        }
        Err(Error::Differs { key: key.clone(), differences })
    }
}

/// The network namespace in which a caller says that a sandbox is.
#[derive(Debug)]
pub struct SandboxNetns {
    /// What the caller calls it.
    pub path: PathBuf,
    /// The namespace itself; without it the path is what counts.
    pub descriptor: Option<OwnedFd>,
}
