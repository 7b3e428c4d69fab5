//! Start: read the store, adopt what is in the kernel, complete what was interrupted.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    core::Node,
    error::Result,
    networks::clash,
    queue::Target,
    record::{
        decode::{self, RefusedRecords},
        encode,
    },
    state::{KernelStatus, Loaded},
};
use netd_dataplane::Drift;
use netd_domain::Network;
use netd_store::{Change, Store as _, Txn, keys};

/// What was found at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// Endpoints read from the store.
    pub endpoints: usize,
    /// Of those, being removed.
    pub detaching: usize,
    /// Records that can't be read: they are named in the log and left as they are.
    pub quarantined: usize,
    /// Links of netd's without a record, removed.
    pub strays: usize,
}

/// A configured network whose pools are leased starts with the leases that it had. They are
/// in force until etcd says otherwise, and etcd may be out of reach now.
fn with_leases_of(wanted: &Network, stored: &[Network]) -> Network {
    let before = stored.iter().find(|n| n.name == wanted.name);
    let Some(leased) = before.and_then(|n| n.leased.clone()).filter(|_| wanted.leased.is_some())
    else {
        return wanted.clone();
    };
    let subnets: Vec<_> = before.iter().flat_map(|n| &n.pools).map(|p| p.subnet).collect();
    wanted.with_leases(&subnets, leased).unwrap_or_else(|_| wanted.clone())
}

impl Node {
    /// Loads the store, makes the networks and rules, adopts or completes every
    /// endpoint, removes stray links, and starts the loops. A problem of one network or
    /// endpoint is noted in [`super::health::Health`] and tried again; it does not stop the
    /// rest.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(self: &Arc<Self>, drift: UnboundedReceiver<Drift>) -> Result<Startup> {
        tokio::spawn(self.clone().watch_threads_forever());
        let mut startup = Startup::default();
        let mut refused = RefusedRecords::default();
        let networks = self.load_networks(&mut refused).await?;
        for network in networks {
            self.add_network(network).await;
        }
        self.load_endpoints(&mut startup, &mut refused).await?;
        self.refused_links.lock().extend(std::mem::take(&mut refused.devices));
        // Before any address is given out, and before the firewall forgets these pods.
        startup.strays = self.find_foreign_pods().await?;
        for state in self.state.networks() {
            let name = state.network.name.clone();
            if self.repair_network(&name).await.is_err() {
                self.queue.later(Target::Network(name), 0);
            }
        }
        self.mark_endpoints().await;
        if self.repair_firewall().await.is_err() {
            self.queue.later(Target::Firewall, 0);
        }
        // The underlay may have changed while no netd was running.
        if self.follow_underlay().await.is_err() {
            self.queue.later(Target::Underlay, 0);
        }
        self.adopt_endpoints().await;
        self.queue.soon(Target::HostAddresses);
        startup.quarantined = refused.records;
        self.started.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::spawn(self.clone().follow_drift(drift));
        tokio::spawn(self.clone().reconcile_forever());
        tokio::spawn(self.clone().tell_of_fights_forever());
        tokio::spawn(self.clone().delete_links_forever());
        tokio::spawn(self.clone().gc_forever());
        tokio::spawn(self.clone().watch_foreign_pods());
        tokio::spawn(self.clone().probe_forever());
        tokio::spawn(self.clone().look_for_listeners_forever());
        self.health.good("reaper");
        self.links_to_delete.notify_one();
        Ok(startup)
    }

    /// Stored networks, updated by the configuration's where these are acceptable.
    async fn load_networks(&self, refused: &mut RefusedRecords) -> Result<Vec<Network>> {
        // A network that is new in the configuration must not give these out a second time.
        self.load_external_addresses(refused).await?;
        let mut stored = Vec::new();
        for entry in self.store.list(keys::NETWORKS).await?.entries {
            match decode::network(&entry) {
                Ok(network) => stored.push(network),
                Err(error) => self.quarantine(refused, &entry.key, &error),
            }
        }
        let (mut networks, clashing) = decode::without_clashes(stored);
        for (network, why) in clashing {
            self.quarantine(refused, &keys::network(&network.name), &why);
        }
        let mut changes = Vec::new();
        for wanted in self.acceptable(&networks) {
            let wanted = with_leases_of(wanted, &networks);
            let key = keys::network(&wanted.name);
            let value = encode::json(&wanted)?;
            match networks.iter_mut().find(|n| n.name == wanted.name) {
                Some(there) if *there == wanted => continue,
                Some(there) => *there = wanted,
                None => networks.push(wanted),
            }
            changes.push(Change::Put { key, value, lease: 0 });
        }
        if !changes.is_empty() {
            self.store.commit(Txn { compares: vec![], changes }).await?;
        }
        Ok(networks)
    }

    /// The configured networks that can exist beside the stored ones. If one is refused, its
    /// stored version stays, which may in turn clash with another configured one.
    fn acceptable(&self, stored: &[Network]) -> Vec<&Network> {
        let mut wanted: Vec<&Network> = self.config.networks.iter().collect();
        loop {
            let stays = |n: &&Network| !wanted.iter().any(|w| w.name == n.name);
            let staying: Vec<&Network> = stored.iter().filter(stays).collect();
            let why = |network: &Network| {
                let others = staying.iter().copied();
                let stored = clash(network, others).map(|clash| stored_clash(&clash));
                stored.or_else(|| self.clash_with_external(network))
            };
            let refused = wanted.iter().enumerate().find_map(|(i, n)| Some((i, why(n)?)));
            let Some((i, text)) = refused else { return wanted };
            self.report_refused(wanted.remove(i), stored, &text);
        }
    }

    /// Reports a configured network that clashes with what is stored and in use, which stays as
    /// it is.
    fn report_refused(&self, wanted: &Network, stored: &[Network], why: &str) {
        let text = format!("as configured, {why}");
        let name = &wanted.name;
        if stored.iter().any(|n| n.name == *name) {
            // Another name than the network's, which works as it is stored.
            self.health.advise(&format!("configuration/{name}"), text);
        } else {
            self.health.bad(&format!("network/{name}"), text);
        }
    }

    async fn probe_forever(self: Arc<Self>) {
        loop {
            tokio::time::sleep(super::instrumented_store::PROBE_INTERVAL).await;
            self.store.probe().await;
        }
    }

    /// Adds a network to the state, even if it can't be made in the kernel later.
    async fn add_network(&self, network: Network) {
        let underlay = self.dataplane.underlay_mtu().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the underlay's MTU can't be read: {error}; using 1500");
            1500
        });
        let wiring = Arc::new(network.wiring(network.effective_mtu(underlay)));
        self.state.put_network(Arc::new(network), wiring);
    }

    async fn load_endpoints(
        &self,
        startup: &mut Startup,
        refused: &mut RefusedRecords,
    ) -> Result<()> {
        let mut loaded = Loaded::default();
        for entry in self.store.list(keys::ENDPOINTS).await?.entries {
            match decode::endpoint(&entry) {
                Ok(endpoint) => loaded.endpoints.push(endpoint),
                Err(error) => {
                    refused.devices.extend(decode::device(&entry.key));
                    self.quarantine(refused, &entry.key, &error);
                }
            }
        }
        for entry in self.store.list(keys::TOMBSTONES).await?.entries {
            match decode::tombstone(&entry) {
                Ok(tombstone) => loaded.tombstones.push(tombstone),
                Err(error) => self.quarantine(refused, &entry.key, &error),
            }
        }
        for entry in self.store.list(keys::ADDRESSES).await?.entries {
            let rest = entry.key.strip_prefix(keys::ADDRESSES).unwrap_or_default();
            let parsed = rest
                .split_once('/')
                .and_then(|(network, ip)| Some((network.parse().ok()?, ip.parse().ok()?)));
            match parsed {
                Some(used) => {
                    if entry.value == encode::RESERVED {
                        loaded.reserved.push(used.clone());
                    }
                    loaded.used_addresses.push(used);
                }
                None => self.quarantine(refused, &entry.key, "not an address"),
            }
        }
        startup.endpoints = loaded.endpoints.len();
        self.state.load(loaded);
        startup.detaching = self.state.detaching().len();
        self.health.good("store");
        Ok(())
    }

    async fn load_external_addresses(&self, refused: &mut RefusedRecords) -> Result<()> {
        for entry in self.store.list(keys::EXTERNAL_ADDRESSES).await?.entries {
            match keys::external_address_of(&entry.key) {
                Some((subnet, ip)) => self.state.restore_external(subnet, ip),
                None => self.quarantine(refused, &entry.key, "not an address of a subnet"),
            }
        }
        Ok(())
    }

    /// Reports a refused record. It stays in the store, and its addresses stay in use.
    fn quarantine(&self, refused: &mut RefusedRecords, key: &str, error: &str) {
        tracing::error!(
            key,
            error,
            "refused record {key}: {error}; it is left as it is, and its addresses stay in use"
        );
        refused.records += 1;
        let text = format!("{} refused records, e.g. {key}: {error}", refused.records);
        self.health.advise("records", text);
    }

    /// Before the firewall's rules are in force, which know endpoints' links by their group.
    async fn mark_endpoints(&self) {
        let endpoints = self.state.endpoints();
        let known = endpoints.iter().map(|(e, _)| e.wiring.host_ifname.clone()).collect();
        if let Err(error) = self.dataplane.mark_endpoints(known).await {
            tracing::warn!(%error, "{error}; packets of pods are checked once they are repaired");
        }
    }

    async fn adopt_endpoints(&self) {
        for (endpoint, status) in self.state.endpoints() {
            if endpoint.runtime_placed.is_some() {
                self.queue.soon(Target::Endpoint(endpoint.key.clone()));
            } else if status == KernelStatus::Attaching {
                let Ok(Some(netns)) = super::pod_netns::own_netns(&endpoint) else {
                    // No path leads to its namespace: its host link tells if it lives.
                    self.queue.soon(Target::Endpoint(endpoint.key.clone()));
                    continue;
                };
                let _lock = self.locks.lock(&endpoint.key).await;
                if self.repair_locked(&endpoint, netns).await.is_err() {
                    self.queue.later(Target::Endpoint(endpoint.key.clone()), 0);
                }
            }
        }
    }
}

/// What to do about a clash with a stored network, which has endpoints.
fn stored_clash(clash: &str) -> String {
    format!(
        "{clash}, which is stored; change the configuration, or delete the other network \
         (`netd network delete`) and start netd again"
    )
}
