//! Start: read the store, adopt what the kernel holds, complete what was cut off.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Node,
    error::Result,
    queue::Target,
    records,
    registry::{Loaded, Work},
};
use crate::{
    dataplane::Drift,
    domain::{Endpoint, IfName, Network, Tombstone},
    store::{Change, Txn, keys},
};

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// Endpoints read from the store.
    pub endpoints: usize,
    /// Of those, on their way out.
    pub detaching: usize,
    /// Records that can't be read: named in the log, left as they are.
    pub quarantined: usize,
    /// Links of netd's without a record, removed.
    pub strays: usize,
}

/// Rebuilds a registry from decoded records, as at start, and uses it: for fuzzing.
pub(crate) fn rebuild(
    networks: Vec<Network>,
    endpoints: Vec<Endpoint>,
    tombstones: Vec<Tombstone>,
) {
    let registry = super::Registry::default();
    for network in networks {
        let wiring = Arc::new(network.wiring(1500));
        registry.put_network(Arc::new(network), wiring);
    }
    registry.load(Loaded { endpoints, tombstones, held: vec![] });
    for (endpoint, _) in registry.endpoints() {
        let tombstone = registry.make_tombstone(&endpoint);
        registry.released(&endpoint, tombstone);
    }
}

impl Node {
    /// Loads the store, makes the networks and rules, adopts or completes every
    /// endpoint, removes strays, and starts the loops. Trouble with one network or
    /// endpoint is noted in [`super::Health`] and tried again; it stops nothing else.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(self: &Arc<Self>, drift: UnboundedReceiver<Drift>) -> Result<Startup> {
        let mut startup = Startup::default();
        let networks = self.load_networks(&mut startup).await?;
        for network in networks {
            self.place(network).await;
        }
        self.load_endpoints(&mut startup).await?;
        for state in self.registry.networks() {
            let name = state.network.name.clone();
            if self.mend_network(&name).await.is_err() {
                self.queue.later(Target::Network(name), 0);
            }
        }
        if self.mend_firewall().await.is_err() {
            self.queue.later(Target::Firewall, 0);
        }
        self.adopt_endpoints().await;
        // The underlay may have changed since the endpoints were recorded.
        self.queue.soon(Target::Underlay);
        startup.strays = self.remove_strays().await;
        self.started.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::spawn(self.clone().follow_drift(drift));
        tokio::spawn(self.clone().reconcile_forever());
        tokio::spawn(self.clone().reap_forever());
        tokio::spawn(self.clone().collect_forever());
        self.health.good("reaper");
        self.reap.notify_one();
        Ok(startup)
    }

    /// Stored networks, with the configuration's put in where they may be.
    async fn load_networks(&self, startup: &mut Startup) -> Result<Vec<Network>> {
        let mut networks: Vec<Network> = Vec::new();
        for entry in self.store.list(keys::NETWORKS).await?.entries {
            match records::decode(&entry) {
                Ok(network) => networks.push(network),
                Err(error) => self.quarantine(startup, &entry.key, &error),
            }
        }
        for wanted in &self.config.networks {
            match networks.iter_mut().find(|n| n.name == wanted.name) {
                Some(there) if there == wanted => continue,
                Some(there) => *there = wanted.clone(),
                None => networks.push(wanted.clone()),
            }
            let key = keys::network(&wanted.name);
            let changes = vec![Change::Put { key, value: records::encode(wanted)?, lease: 0 }];
            self.store.commit(Txn { compares: vec![], changes }).await?;
        }
        Ok(networks)
    }

    /// Registers a network whatever else happens; its wiring is made afterwards.
    async fn place(&self, network: Network) {
        let mtu = match network.mtu {
            Some(mtu) => mtu,
            None => self.dataplane.underlay_mtu().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the underlay's MTU can't be read; taking 1500");
                1500
            }),
        };
        let wiring = Arc::new(network.wiring(mtu));
        self.registry.put_network(Arc::new(network), wiring);
    }

    async fn load_endpoints(&self, startup: &mut Startup) -> Result<()> {
        let mut loaded = Loaded::default();
        for entry in self.store.list(keys::ENDPOINTS).await?.entries {
            match records::decode::<Endpoint>(&entry) {
                Ok(endpoint) => loaded.endpoints.push(endpoint),
                Err(error) => self.quarantine(startup, &entry.key, &error),
            }
        }
        for entry in self.store.list(keys::TOMBSTONES).await?.entries {
            match records::decode::<Tombstone>(&entry) {
                Ok(tombstone) => loaded.tombstones.push(tombstone),
                Err(error) => self.quarantine(startup, &entry.key, &error),
            }
        }
        for entry in self.store.list(keys::ADDRESSES).await?.entries {
            let rest = entry.key.strip_prefix(keys::ADDRESSES).unwrap_or_default();
            let parsed = rest
                .split_once('/')
                .and_then(|(network, ip)| Some((network.parse().ok()?, ip.parse().ok()?)));
            match parsed {
                Some(held) => loaded.held.push(held),
                None => self.quarantine(startup, &entry.key, "not an address"),
            }
        }
        startup.endpoints = loaded.endpoints.len();
        self.registry.load(loaded);
        startup.detaching = self.registry.detaching().len();
        self.health.good("store");
        Ok(())
    }

    /// An unreadable record removes nothing: what it may hold stays held.
    fn quarantine(&self, startup: &mut Startup, key: &str, error: &str) {
        tracing::error!(key, error, "unreadable record; left as it is, what it holds stays held");
        startup.quarantined += 1;
        let text = format!("{} unreadable records, e.g. {key}: {error}", startup.quarantined);
        self.health.advise("records", text);
    }

    async fn adopt_endpoints(&self) {
        for (endpoint, work) in self.registry.endpoints() {
            if work == Work::Attaching {
                let Some(netns) = super::reconcile::own_netns(&endpoint) else {
                    tracing::warn!(endpoint = %endpoint.key, "its namespace is gone");
                    continue;
                };
                let _lock = self.locks.lock(&endpoint.key).await;
                if self.repair_locked(&endpoint, netns).await.is_err() {
                    self.queue.later(Target::Endpoint(endpoint.key.clone()), 0);
                }
            }
        }
    }

    /// Removes links of netd's that no record knows: an attach that was cut off and
    /// rolled back, or a record lost with a reboot of something else's making.
    async fn remove_strays(&self) -> usize {
        let links = match self.dataplane.host_links().await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "the host's links can't be listed");
                return 0;
            }
        };
        let recorded = self.registry.endpoints();
        let known: HashSet<&IfName> = recorded.iter().map(|(e, _)| &e.wiring.host_ifname).collect();
        let mut removed = 0;
        for link in links.iter().filter(|l| !l.parked && !known.contains(&l.ifname)) {
            match self.dataplane.remove_stray(&link.ifname).await {
                Ok(()) => {
                    tracing::warn!(link = %link.ifname, "no record knows this link: removed");
                    removed += 1;
                }
                Err(error) => tracing::warn!(link = %link.ifname, %error, "stray link"),
            }
        }
        if links.iter().any(|l| l.parked)
            && let Err(error) = self.dataplane.reap().await
        {
            tracing::warn!(%error, "links parked by an earlier netd are still there");
        }
        removed
    }
}
