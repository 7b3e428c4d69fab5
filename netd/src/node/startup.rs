//! Start: read the store, adopt what the kernel holds, complete what was cut off.

use std::{collections::HashSet, sync::Arc};

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
use netd_domain::{IfName, Network};
use netd_store::{Change, Store as _, Txn, keys};

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

/// A configured network whose pools are leased begins with the leases that it had: they
/// are in force until the cluster's store says else, which may be out of reach.
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
    /// endpoint, removes strays, and starts the loops. Trouble with one network or
    /// endpoint is noted in [`super::health::Health`] and tried again; it stops nothing else.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn start(self: &Arc<Self>, drift: UnboundedReceiver<Drift>) -> Result<Startup> {
        let mut startup = Startup::default();
        let mut refused = RefusedRecords::default();
        let networks = self.load_networks(&mut refused).await?;
        for network in networks {
            self.place(network).await;
        }
        self.load_endpoints(&mut startup, &mut refused).await?;
        for state in self.state.networks() {
            let name = state.network.name.clone();
            if self.repair_network(&name).await.is_err() {
                self.queue.later(Target::Network(name), 0);
            }
        }
        if self.repair_firewall().await.is_err() {
            self.queue.later(Target::Firewall, 0);
        }
        // The underlay may have changed while no netd was running.
        if self.follow_underlay().await.is_err() {
            self.queue.later(Target::Underlay, 0);
        }
        self.adopt_endpoints().await;
        startup.quarantined = refused.records;
        startup.strays = self.remove_strays(&refused).await;
        self.started.store(true, std::sync::atomic::Ordering::Relaxed);
        tokio::spawn(self.clone().follow_drift(drift));
        tokio::spawn(self.clone().reconcile_forever());
        tokio::spawn(self.clone().delete_links_forever());
        tokio::spawn(self.clone().gc_forever());
        tokio::spawn(self.clone().probe_forever());
        self.health.good("reaper");
        self.links_to_delete.notify_one();
        Ok(startup)
    }

    /// Stored networks, with the configuration's put in where they may be.
    async fn load_networks(&self, refused: &mut RefusedRecords) -> Result<Vec<Network>> {
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

    /// The configured networks that can be beside the stored ones. One that can't leaves
    /// its stored self in place, which may be in another one's way in turn.
    fn acceptable(&self, stored: &[Network]) -> Vec<&Network> {
        let mut wanted: Vec<&Network> = self.config.networks.iter().collect();
        loop {
            let stays = |n: &&Network| !wanted.iter().any(|w| w.name == n.name);
            let staying: Vec<&Network> = stored.iter().filter(stays).collect();
            let refused = wanted
                .iter()
                .enumerate()
                .find_map(|(i, network)| Some((i, clash(network, staying.iter().copied())?)));
            let Some((i, text)) = refused else { return wanted };
            self.not_taken(wanted.remove(i), stored, &text);
        }
    }

    /// A configured network that can't be beside a stored one. The stored ones have the
    /// endpoints, so they go on as they are.
    fn not_taken(&self, wanted: &Network, stored: &[Network], clash: &str) {
        let text = format!(
            "as configured, {clash}, which is stored; change the configuration, or delete the \
             other network (`netd network delete`) and start netd again"
        );
        let name = &wanted.name;
        if stored.iter().any(|n| n.name == *name) {
            // A name of its own: the network itself works.
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

    /// Registers a network whatever else happens; its wiring is made afterwards.
    async fn place(&self, network: Network) {
        let underlay = self.dataplane.underlay_mtu().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the underlay's MTU can't be read; taking 1500");
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
                Some(held) => {
                    if entry.value == encode::RESERVED {
                        loaded.reserved.push(held.clone());
                    }
                    loaded.held.push(held);
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

    /// A refused record changes nothing: what it may hold stays held.
    fn quarantine(&self, refused: &mut RefusedRecords, key: &str, error: &str) {
        tracing::error!(key, error, "record refused; left as it is, what it holds stays held");
        refused.records += 1;
        let text = format!("{} refused records, e.g. {key}: {error}", refused.records);
        self.health.advise("records", text);
    }

    async fn adopt_endpoints(&self) {
        for (endpoint, work) in self.state.endpoints() {
            if endpoint.moved.is_some() {
                self.queue.soon(Target::Endpoint(endpoint.key.clone()));
            } else if work == KernelStatus::Attaching {
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
    /// Links of refused records are left alone.
    async fn remove_strays(&self, refused: &RefusedRecords) -> usize {
        let links = match self.dataplane.host_links().await {
            Ok(links) => links,
            Err(error) => {
                tracing::warn!(%error, "the host's links can't be listed");
                return 0;
            }
        };
        let recorded = self.state.endpoints();
        let recorded = recorded.iter().map(|(e, _)| &e.wiring.host_ifname);
        let known: HashSet<&IfName> = recorded.chain(&refused.devices).collect();
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
