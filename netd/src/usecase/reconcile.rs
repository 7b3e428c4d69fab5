//! The level-triggered loop: whatever may differ is read from the kernel, compared
//! with what is wanted, and mended. Start-up, drift and retries all take this way.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::mpsc::UnboundedReceiver, task::JoinSet};

use super::{
    Node,
    error::{Error, Result},
    queue::Target,
    records,
    registry::Work,
};
use crate::{
    dataplane::{DataplaneError, Drift, Netns, Repair},
    domain::{Endpoint, EndpointKey, NetworkName, Phase},
};

impl Node {
    /// Turns the kernel's events into targets, for ever.
    pub(super) async fn follow_drift(self: Arc<Self>, mut drift: UnboundedReceiver<Drift>) {
        while let Some(event) = drift.recv().await {
            match event {
                Drift::Endpoint(host) => {
                    if let Some(key) = self.registry.by_host(&host) {
                        self.queue.soon(Target::Endpoint(key));
                    }
                }
                Drift::Network(bridge) => {
                    for state in self.registry.networks() {
                        let wired = state.wiring.bridge.as_ref();
                        if wired.is_some_and(|b| b.name == bridge) {
                            self.queue.soon(Target::Network(state.network.name.clone()));
                        }
                    }
                }
                Drift::Firewall => self.queue.soon(Target::Firewall),
                Drift::Underlay => self.queue.soon(Target::Underlay),
                Drift::Sysctl => {
                    for state in self.registry.networks() {
                        self.queue.soon(Target::Network(state.network.name.clone()));
                    }
                }
                Drift::Everything => self.queue.soon(Target::Everything),
            }
        }
    }

    /// Mends what is due, for ever. One that hangs or fails holds up no other.
    pub(super) async fn reconcile_forever(self: Arc<Self>) {
        /// The kernel works on one change at a time anyway (rtnl).
        const AT_ONCE: usize = 16;
        let mut running = JoinSet::new();
        loop {
            for (target, failures) in self.queue.next().await {
                while running.len() >= AT_ONCE {
                    running.join_next().await;
                }
                let node = self.clone();
                running.spawn(async move { node.mend(target, failures).await });
            }
            while running.try_join_next().is_some() {}
        }
    }

    async fn mend(self: Arc<Self>, target: Target, failures: u32) {
        let result = match &target {
            Target::Endpoint(key) => self.mend_endpoint(key).await,
            Target::Network(name) => self.mend_network(name).await,
            Target::Firewall => self.mend_firewall().await,
            Target::Underlay => self.follow_underlay().await,
            Target::Everything => self.mend_everything().await,
        };
        if let Err(error) = result {
            tracing::warn!(?target, failures, %error, "could not be put right; trying again");
            self.queue.later(target, failures);
        }
    }

    async fn mend_everything(&self) -> Result<()> {
        self.queue.soon(Target::Underlay);
        for state in self.registry.networks() {
            self.queue.soon(Target::Network(state.network.name.clone()));
        }
        self.queue.soon(Target::Firewall);
        for (endpoint, _) in self.registry.endpoints() {
            self.queue.soon(Target::Endpoint(endpoint.key.clone()));
        }
        Ok(())
    }

    /// Puts one endpoint right. One whose namespace is gone is left to collection.
    async fn mend_endpoint(&self, key: &EndpointKey) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, _)) = self.registry.endpoint(key) else { return Ok(()) };
        if endpoint.phase != Phase::Attached {
            return Ok(());
        }
        let Some(netns) = own_netns(&endpoint) else {
            tracing::debug!(endpoint = %key, "its namespace is gone");
            return Ok(());
        };
        self.repair_locked(&endpoint, netns).await.map(|_| ())
    }

    /// Compares and mends; the caller holds the key's lock.
    pub(super) async fn repair_locked(
        &self,
        endpoint: &Arc<Endpoint>,
        netns: Arc<Netns>,
    ) -> Result<Vec<Repair>> {
        let wiring = Arc::new(endpoint.wiring.clone());
        let component = format!("endpoint/{}", endpoint.key);
        match self.dataplane.repair(netns, wiring).await {
            Ok(repairs) => {
                self.registry.set_work(&endpoint.key, Work::Attached);
                self.health.forget(&component);
                self.count(&endpoint.key, &repairs);
                Ok(repairs)
            }
            Err(error) => {
                // A namespace that went away meanwhile is no fault of this endpoint's.
                if own_netns(endpoint).is_some() {
                    self.registry.set_work(&endpoint.key, Work::Failed(error.to_string()));
                    self.health.advise(&component, &error);
                }
                Err(error.into())
            }
        }
    }

    pub(super) fn count(&self, what: &dyn std::fmt::Display, repairs: &[Repair]) {
        if !self.started.load(Ordering::Relaxed) {
            for repair in repairs {
                tracing::info!(object = %what, kind = repair.kind.name(), detail = repair.detail,
                    "made");
            }
            return;
        }
        for repair in repairs {
            tracing::warn!(object = %what, kind = repair.kind.name(), detail = repair.detail,
                "put back");
            self.metrics.drift_repaired(repair.kind.name(), 1);
        }
    }

    pub(super) async fn mend_network(&self, name: &NetworkName) -> Result<()> {
        let Some(state) = self.registry.network(name) else { return Ok(()) };
        let component = format!("network/{name}");
        match self.dataplane.ensure_network(state.wiring).await {
            Ok(repairs) => {
                self.health.good(&component);
                self.count(name, &repairs);
                if !repairs.is_empty() {
                    // A bridge that was made again has lost its ports.
                    for (endpoint, _) in self.registry.endpoints() {
                        if endpoint.network == *name {
                            self.queue.soon(Target::Endpoint(endpoint.key.clone()));
                        }
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.health.bad(&component, &error);
                Err(error.into())
            }
        }
    }

    pub(super) async fn mend_firewall(&self) -> Result<()> {
        let registry = self.registry.clone();
        match self.dataplane.replace_firewall(move || registry.firewall()).await {
            Ok(repairs) => {
                self.health.good("firewall");
                self.count(&"firewall", &repairs);
                Ok(())
            }
            Err(error) => {
                self.health.bad("firewall", &error);
                Err(error.into())
            }
        }
    }

    /// Networks without an MTU of their own follow the underlay's, and endpoints without
    /// one their network's; also what changed while netd was not there.
    pub(super) async fn follow_underlay(&self) -> Result<()> {
        let underlay = self.dataplane.underlay_mtu().await?;
        for state in self.registry.networks() {
            let (name, old) = (state.network.name.clone(), state.wiring.mtu);
            let mtu = state.network.mtu.unwrap_or(underlay);
            if old != mtu {
                tracing::info!(network = %name, from = old, to = mtu, "the underlay's MTU changed");
                let wiring = Arc::new(state.network.wiring(mtu));
                self.registry.put_network(state.network.clone(), wiring);
                self.queue.soon(Target::Network(name.clone()));
            }
            for (endpoint, _) in self.registry.endpoints() {
                let follows = endpoint.network == name && !endpoint.own_mtu;
                if follows && endpoint.wiring.mtu != mtu {
                    self.change_mtu(&endpoint.key, mtu).await?;
                }
            }
        }
        Ok(())
    }

    async fn change_mtu(&self, key: &EndpointKey, mtu: u32) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, work)) = self.registry.endpoint(key) else { return Ok(()) };
        if endpoint.phase != Phase::Attached {
            return Ok(());
        }
        let mut changed = Endpoint::clone(&endpoint);
        changed.wiring.mtu = mtu;
        self.store.commit(records::update(&changed)?).await?;
        self.registry.update(Arc::new(changed), work);
        self.queue.soon(Target::Endpoint(key.clone()));
        Ok(())
    }

    /// Compares an endpoint with the kernel, changing nothing.
    ///
    /// # Errors
    /// [`Error::Differs`] names every difference.
    pub async fn check(
        &self,
        key: &EndpointKey,
        netns_path: Option<&str>,
    ) -> Result<Arc<Endpoint>> {
        let found = self.registry.endpoint(key).map(|(endpoint, _)| endpoint);
        let endpoint = found.filter(|e| e.phase == Phase::Attached);
        let endpoint = endpoint.ok_or_else(|| Error::NoEndpoint(key.clone()))?;
        let netns = Netns::open(&endpoint.netns_path)?;
        let same = match netns_path {
            Some(path) => Netns::open(path.as_ref())?.id() == endpoint.netns,
            None => netns.id() == endpoint.netns,
        };
        if !same {
            return Err(Error::WrongNetns {
                key: key.clone(),
                asked: netns_path.unwrap_or("its namespace").to_owned(),
                have: endpoint.netns_path.display().to_string(),
            });
        }
        let wiring = Arc::new(endpoint.wiring.clone());
        let differences = self.dataplane.check(Arc::new(netns), wiring).await?;
        if differences.is_empty() {
            return Ok(endpoint);
        }
        Err(Error::Differs { key: key.clone(), differences })
    }
}

/// The endpoint's namespace, if it is still the one it was attached in.
pub(super) fn own_netns(endpoint: &Endpoint) -> Option<Arc<Netns>> {
    match Netns::open(&endpoint.netns_path) {
        Ok(netns) if netns.id() == endpoint.netns => Some(Arc::new(netns)),
        Ok(_) | Err(DataplaneError::NetnsGone { .. } | DataplaneError::NotANetns { .. }) => None,
        Err(error) => {
            tracing::warn!(endpoint = %endpoint.key, %error, "its namespace can't be opened");
            None
        }
    }
}
