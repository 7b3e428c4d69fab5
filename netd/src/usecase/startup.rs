//! Start: read the store, adopt what the kernel holds, complete what was cut off.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    Node,
    error::Result,
    queue::Target,
    recorded::{self, Quarantine},
    records,
    registry::{Loaded, Work},
};
use crate::{
    dataplane::Drift,
    domain::{IfName, Network},
    store::{Change, Txn, keys},
};

/// What was found at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Startup {
    /// Endpoints read from the store.
    pub endpoints: usize,
    /// Of those, on their way out.
    pub detaching: usize,
    /// Records that can't be read or can't be right: named in the log, left as they are.
    pub quarantined: usize,
    /// Links of netd's without a record, removed.
    pub strays: usize,
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
        let mut refused = Quarantine::default();
        let networks = self.load_networks(&mut refused).await?;
        for network in networks {
            self.place(network).await;
        }
        self.load_endpoints(&mut startup, &mut refused).await?;
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
        startup.quarantined = refused.records;
        startup.strays = self.remove_strays(&refused).await;
        self.started.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::spawn(self.clone().follow_drift(drift));
        tokio::spawn(self.clone().reconcile_forever());
        tokio::spawn(self.clone().reap_forever());
        tokio::spawn(self.clone().collect_forever());
        self.health.good("reaper");
        self.reap.notify_one();
        Ok(startup)
    }

    /// The configuration's networks, and the stored ones that go with them.
    async fn load_networks(&self, refused: &mut Quarantine) -> Result<Vec<Network>> {
        let mut networks = self.config.networks.clone();
        let mut recorded = HashSet::new();
        for entry in self.store.list(keys::NETWORKS).await?.entries {
            match recorded::network(&entry) {
                Ok(stored) if networks.contains(&stored) => drop(recorded.insert(stored.name)),
                Ok(stored) if networks.iter().any(|n| n.name == stored.name) => {}
                Ok(stored) => networks.push(stored),
                Err(error) => self.quarantine(refused, &entry.key, &error),
            }
        }
        for wanted in self.config.networks.iter().filter(|n| !recorded.contains(&n.name)) {
            let key = keys::network(&wanted.name);
            let changes = vec![Change::Put { key, value: records::encode(wanted)?, lease: 0 }];
            self.store.commit(Txn { compares: vec![], changes }).await?;
        }
        let (networks, clashing) = recorded::without_clashes(networks);
        for (network, why) in clashing {
            self.quarantine(refused, &keys::network(&network.name), &why);
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

    async fn load_endpoints(&self, startup: &mut Startup, refused: &mut Quarantine) -> Result<()> {
        let mut loaded = Loaded::default();
        for entry in self.store.list(keys::ENDPOINTS).await?.entries {
            match recorded::endpoint(&entry) {
                Ok(endpoint) => loaded.endpoints.push(endpoint),
                Err(error) => {
                    refused.devices.extend(recorded::device(&entry.key));
                    self.quarantine(refused, &entry.key, &error);
                }
            }
        }
        for entry in self.store.list(keys::TOMBSTONES).await?.entries {
            match recorded::tombstone(&entry) {
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
                Some(held) => loaded.held.push(held),
                None => self.quarantine(refused, &entry.key, "not an address"),
            }
        }
        startup.endpoints = loaded.endpoints.len();
        self.registry.load(loaded);
        startup.detaching = self.registry.detaching().len();
        self.health.good("store");
        Ok(())
    }

    /// A refused record changes nothing: what it may hold stays held.
    fn quarantine(&self, refused: &mut Quarantine, key: &str, error: &str) {
        tracing::error!(key, error, "record refused; left as it is, what it holds stays held");
        refused.records += 1;
        let text = format!("{} refused records, e.g. {key}: {error}", refused.records);
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
    async fn remove_strays(&self, refused: &Quarantine) -> usize {
        let links = match self.dataplane.host_links().await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "the host's links can't be listed");
                return 0;
            }
        };
        let recorded = self.registry.endpoints();
        let known = recorded.iter().map(|(e, _)| &e.wiring.host_ifname);
        let known: HashSet<&IfName> = known.chain(&refused.devices).collect();
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
