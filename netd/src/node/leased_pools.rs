//! The subnets that this node has of the cluster become the pools of its network.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    core::Node,
    error::{Error, Result},
    listed::listed,
    networks::clash,
    queue::Target,
    record::encode,
    state::NetworkState,
};
use netd_domain::{Network, NetworkName, network::Leased};
use netd_store::{Change, Store as _, Txn, keys};

impl Node {
    /// Makes `subnets` the pools of a network whose pools are leased. Addresses in use of a
    /// pool that is removed stay in use. Nothing happens if nothing differs.
    ///
    /// # Errors
    /// [`Error::NetworkExists`] when the cluster overlaps with another network of this
    /// node: the network stays as it was.
    pub(super) async fn set_leased_pools(
        &self,
        name: &NetworkName,
        subnets: &[IpNet],
        leased: Leased,
    ) -> Result<()> {
        let topology = self.network_changes.lock().await;
        let state = self.state.network(name).ok_or_else(|| Error::NoNetwork(name.clone()))?;
        let next = state.network.with_leases(subnets, leased)?;
        if next == *state.network {
            return Ok(());
        }
        let networks = self.state.networks();
        if let Some(text) = clash(&next, networks.iter().map(|s| &*s.network)) {
            let text = format!("network \"{name}\" as the cluster has it: {text}");
            return Err(Error::NetworkExists(text));
        }
        tracing::info!(network = %name, pools = %listed(subnets), "network {name} now has the pools {}", listed(subnets));
        for gone in state.network.pools.iter().filter(|p| !subnets.contains(&p.subnet)) {
            self.metrics.remove_pool(name, gone.subnet);
        }
        let mtu = next.effective_mtu(self.dataplane.underlay_mtu().await?);
        self.decide_withheld(&next).await?;
        let wiring = Arc::new(self.wiring_of(&next, mtu));
        self.store_network(&next).await?;
        self.state.put_network(Arc::new(next), wiring);
        self.changed.lock().insert(name.clone());
        // What the kernel refuses now is reported, and tried again.
        if self.repair_network_locked(name).await.is_err() {
            self.queue.later(Target::Network(name.clone()), 0);
        }
        self.remove_gateways(&state, subnets).await;
        drop(topology);
        self.pools_changed.notify_waiters();
        self.queue.soon(Target::Firewall);
        self.queue.soon(Target::Underlay);
        Ok(())
    }

    /// Removes empty pools from a network, so that their subnets can be returned to the
    /// cluster; returns whether they were empty.
    ///
    /// # Errors
    /// The store's: the pools are removed from memory only, and come back with the next
    /// update of the node's leases.
    pub(super) async fn remove_empty_pools(
        &self,
        name: &NetworkName,
        going: &[IpNet],
    ) -> Result<bool> {
        let _topology = self.network_changes.lock().await;
        let Some(state) = self.state.network(name) else { return Ok(false) };
        let leased = state.network.leased.clone().unwrap_or_default();
        let all = state.network.pools.iter().map(|p| p.subnet);
        let stay: Vec<IpNet> = all.filter(|subnet| !going.contains(subnet)).collect();
        let next = state.network.with_leases(&stay, leased)?;
        let wiring = Arc::new(self.wiring_of(&next, state.wiring.mtu));
        if !self.state.shrink_network(Arc::new(next.clone()), wiring) {
            return Ok(false);
        }
        for subnet in going {
            self.metrics.remove_pool(name, *subnet);
        }
        self.changed.lock().insert(name.clone());
        self.remove_gateways(&state, &stay).await;
        self.queue.soon(Target::Network(name.clone()));
        self.queue.soon(Target::Firewall);
        self.store_network(&next).await?;
        Ok(true)
    }

    /// Takes the gateways of pools that are gone off the bridge, unless pods still use them:
    /// their routes would lead packets for the subnet's next owner to this bridge.
    async fn remove_gateways(&self, before: &NetworkState, stay: &[IpNet]) {
        let Some(bridge) = &before.wiring.bridge else { return };
        let endpoints = self.state.endpoints();
        let used: Vec<_> = endpoints.iter().flat_map(|(endpoint, _)| endpoint.ips()).collect();
        let is_gone = |gateway: &&IpNet| {
            let here = |net: &IpNet| net.contains(&gateway.addr());
            !stay.iter().any(here) && !used.iter().any(|ip| gateway.contains(ip))
        };
        let gone: Vec<IpNet> = bridge.addresses.iter().filter(is_gone).copied().collect();
        if gone.is_empty() {
            return;
        }
        if let Err(error) = self.dataplane.remove_gateways(before.wiring.clone(), gone).await {
            let network = &before.network.name;
            tracing::warn!(%network, %error, "gateways of network {network} can't be removed: {error}");
        }
    }

    async fn store_network(&self, network: &Network) -> Result<()> {
        let key = keys::network(&network.name);
        let put = Change::Put { key, value: encode::json(network)?, lease: 0 };
        self.store.commit(Txn { compares: vec![], changes: vec![put] }).await?;
        Ok(())
    }
}
