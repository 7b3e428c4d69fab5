//! Networks: create, delete.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;

use super::{
    core::Node,
    error::{Error, Result},
    queue::Target,
    record::encode,
    run_to_end::run_to_end,
};
use netd_domain::{
    HostNetwork, IfName, Invalid, Mac, Network, NetworkName, NetworkWiring, PodAccess,
};
use netd_store::{Change, Compare, Store as _, Txn, TxnOutcome, keys};

impl Node {
    /// Why the network can't exist beside the subnets of which netd assigns addresses for other
    /// programs, if so.
    pub(super) fn clash_with_external(&self, network: &Network) -> Option<String> {
        let subnet = self.state.external_clash(network)?;
        Some(format!(
            "netd assigns the addresses of {subnet} for a network of another program (a Docker \
             network with --ipam-driver netd and another driver); remove that one, or choose \
             another subnet"
        ))
    }

    /// The MAC that a bridge of this node has.
    pub fn bridge_mac(&self, name: &IfName) -> Mac {
        self.dataplane.bridge_mac(name)
    }

    /// Creates a network; nothing happens if the same one exists. Runs to its end even if the
    /// caller goes away.
    ///
    /// # Errors
    /// [`Error::NetworkExists`] for another of that name, or with overlapping pools,
    /// or on the same bridge, or when another program has a device of the bridge's name;
    /// [`Error::Invalid`] for a pool that would cut the host off from a network that it is in,
    /// unless `force`. Nothing of it is left then.
    pub async fn create_network(self: &Arc<Self>, network: Network, force: bool) -> Result<()> {
        let node = self.clone();
        let create = async move { node.create_network_to_end(network, force).await };
        run_to_end("create network", create).await
    }

    async fn create_network_to_end(&self, mut network: Network, force: bool) -> Result<()> {
        let _topology = self.network_changes.lock().await;
        if let Some(state) = self.state.network(&network.name) {
            // Who may use it is not said again by a caller that never said it.
            let access = network.has_own_access().then(|| network.access());
            let access = access.unwrap_or_else(|| state.network.access());
            network.allow_host_overlap = state.network.allow_host_overlap;
            if *state.network == network.with_access(access) {
                return Ok(());
            }
            let text = format!("network \"{}\" exists with other settings", network.name);
            return Err(Error::NetworkExists(text));
        }
        let networks = self.state.networks();
        if let Some(text) = clash(&network, networks.iter().map(|s| &*s.network)) {
            return Err(Error::NetworkExists(text));
        }
        if let Some(text) = self.clash_with_external(&network) {
            return Err(Error::NetworkExists(text));
        }
        let mtu = match network.mtu {
            Some(mtu) => mtu,
            None => network.effective_mtu(self.dataplane.underlay_mtu().await?),
        };
        let wiring = Arc::new(network.wiring(mtu));
        if let Some(what) = self.dataplane.in_the_way(wiring.clone()).await? {
            let text = format!(
                "bridge {}: the host has {what} of that name, which is not netd's; name another bridge",
                network.bridge
            );
            return Err(Error::NetworkExists(text));
        }
        if let Some(taken) = self.dataplane.owned_by_docker(wiring.clone()).await? {
            return Err(Error::NetworkExists(owned_by_docker(&network.name, &taken)));
        }
        if !force {
            self.refuse_the_hosts(&network).await?;
        }
        network.allow_host_overlap = force;
        let name = network.name.clone();
        let key = keys::network(&name);
        let txn = Txn {
            compares: vec![Compare::Absent(key.clone())],
            changes: vec![Change::Put { key, value: encode::json(&network)?, lease: 0 }],
        };
        if let TxnOutcome::Conflict(_) = self.store.commit(txn).await? {
            let text = format!("network \"{name}\" is being created by another request");
            return Err(Error::NetworkExists(text));
        }
        self.changed.lock().insert(name.clone());
        self.state.put_network(Arc::new(network), wiring);
        let made = match self.repair_network_locked(&name).await {
            Ok(()) => self.repair_firewall().await,
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            self.undo_create(&name).await;
            return Err(error);
        }
        tracing::info!(network = %name, "created network {name}");
        Ok(())
    }

    /// # Errors
    /// [`Error::Invalid`]: the host is in a network that a pool overlaps with.
    async fn refuse_the_hosts(&self, network: &Network) -> Result<()> {
        let known = self.dataplane.host_networks().await?;
        let mut bad = Invalid::new();
        for (i, pool) in network.pools.iter().enumerate() {
            let others = known.iter().filter(|host| host.device != network.bridge.as_str());
            for host in others {
                if host.is_cut_off_by(&pool.subnet) {
                    let text = format!(
                        "{} overlaps with {host}: the host could not reach that any more; choose \
                         another subnet (netd network create --force takes it all the same)",
                        pool.subnet
                    );
                    bad.add(format!("pools[{i}].subnet"), text);
                    break;
                }
                if host.is_reason_against(&pool.subnet) {
                    let (name, subnet) = (&network.name, pool.subnet);
                    tracing::warn!(network = %name,
                        "pool {subnet} of network {name} covers {host}: packets to it go to pods");
                }
            }
        }
        Ok(bad.into_result()?)
    }

    /// The networks that the host itself is in or leads to, which no automatic choice takes.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn host_networks(&self) -> Result<Vec<HostNetwork>> {
        Ok(self.dataplane.host_networks().await?)
    }

    /// An address of docker0 that lies in one of `subnets`, which belong, or are to belong, to
    /// the network with this wiring.
    pub(super) async fn find_docker0(
        &self,
        wiring: &NetworkWiring,
        subnets: Vec<IpNet>,
    ) -> Result<Option<IpNet>> {
        if subnets.is_empty() {
            return Ok(None);
        }
        let wiring = Arc::new(NetworkWiring { subnets, ..wiring.clone() });
        Ok(self.dataplane.owned_by_docker(wiring).await?)
    }

    /// # Errors
    /// [`Error::Docker0`]: dockerd assigns the network's addresses, too, and neither asks the
    /// other whether one is free. [`Error::HostNetwork`]: the host itself is in a pool.
    pub(super) fn refuse_others_subnets(&self, name: &NetworkName) -> Result<()> {
        match self.docker0.lock().get(name) {
            Some(taken) => Err(Error::Docker0(owned_by_docker(name, taken))),
            None => self.refuse_withheld(name),
        }
    }

    /// Says which pods may use the network from now on; endpoints that exist stay. Runs to its
    /// end even if the caller goes away.
    ///
    /// # Errors
    /// [`Error::NoNetwork`], or the store's: nothing is changed then.
    pub(crate) async fn set_pod_access(
        self: &Arc<Self>,
        name: &NetworkName,
        access: PodAccess,
    ) -> Result<()> {
        let (node, name) = (self.clone(), name.clone());
        let set = async move { node.set_pod_access_to_end(&name, access).await };
        run_to_end("set pod access", set).await
    }

    async fn set_pod_access_to_end(&self, name: &NetworkName, access: PodAccess) -> Result<()> {
        let _topology = self.network_changes.lock().await;
        let state = self.state.network(name).ok_or_else(|| Error::NoNetwork(name.clone()))?;
        let network = state.network.with_access(access);
        let value = encode::json(&network)?;
        let put = Change::Put { key: keys::network(name), value, lease: 0 };
        self.store.commit(Txn { compares: vec![], changes: vec![put] }).await?;
        self.state.put_network(Arc::new(network), state.wiring);
        tracing::info!(network = %name, "changed which pods may use network {name}");
        Ok(())
    }

    /// Removes a network that was recorded and can't be made. One that can't be removed
    /// either stays recorded, is shown as not ready, and is tried again.
    async fn undo_create(&self, name: &NetworkName) {
        if let Err(error) = self.remove(name).await {
            tracing::warn!(network = %name, %error,
                "network {name} can be neither made nor removed: {error}; trying again");
            self.queue.later(Target::Network(name.clone()), 0);
            self.queue.later(Target::Firewall, 0);
        }
    }

    /// Deletes a network without endpoints; nothing happens if it does not exist. Runs to its
    /// end even if the caller goes away.
    ///
    /// # Errors
    /// [`Error::NetworkInUse`], [`Error::OverlayNetwork`]; or it could not be removed, and is still there.
    pub async fn delete_network(self: &Arc<Self>, name: &NetworkName) -> Result<()> {
        let (node, name) = (self.clone(), name.clone());
        let delete = async move { node.delete_network_to_end(&name).await };
        run_to_end("delete network", delete).await
    }

    async fn delete_network_to_end(&self, name: &NetworkName) -> Result<()> {
        let _topology = self.network_changes.lock().await;
        if self.state.network(name).is_none() {
            return Ok(());
        }
        if self.config.overlay.as_ref().is_some_and(|overlay| overlay.network == *name) {
            return Err(Error::OverlayNetwork(name.clone()));
        }
        self.remove(name).await?;
        tracing::info!(network = %name, "deleted network {name}");
        Ok(())
    }

    /// Removes the network from the kernel first, then from the store: if netd ends between
    /// the two, the network is still known and can be made or deleted again. The caller
    /// holds `network_changes`.
    async fn remove(&self, name: &NetworkName) -> Result<()> {
        let Some(state) = self.state.network(name) else { return Ok(()) };
        for ip in self.state.old_reservations(Some(name), Duration::ZERO) {
            self.release(ip).await?;
        }
        // From here on no attach finds it.
        let endpoints = self.state.retire_network(name);
        if endpoints > 0 {
            return Err(Error::NetworkInUse { name: name.clone(), endpoints });
        }
        let removed = match self.dataplane.remove_network(state.wiring.clone()).await {
            Ok(()) => {
                let changes = vec![Change::Delete { key: keys::network(name) }];
                let gone = self.store.commit(Txn { compares: vec![], changes }).await;
                gone.map(drop).map_err(Error::from)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = removed {
            self.state.put_network(state.network, state.wiring);
            self.changed.lock().insert(name.clone());
            self.queue.soon(Target::Network(name.clone()));
            return Err(error);
        }
        self.changed.lock().remove(name);
        self.docker0.lock().remove(name);
        self.forget_host_pools(name);
        self.health.forget(&format!("docker0/{name}"));
        self.health.forget(&format!("network/{name}"));
        for pool in &state.network.pools {
            self.metrics.remove_pool(name, pool.subnet);
        }
        if let Err(error) = self.repair_firewall().await {
            tracing::warn!(network = %name, %error, "the firewall rules of network {name} could not be removed: {error}; trying again");
            self.queue.later(Target::Firewall, 0);
        }
        Ok(())
    }
}

/// The refusal of a subnet that dockerd uses: a subnet has one owner.
pub(super) fn owned_by_docker(name: &NetworkName, taken: &IpNet) -> String {
    format!(
        "network \"{name}\": Docker assigns the addresses of {}, as docker0 has {taken}; take the subnet away from docker0 (dockerd --bip, --bridge=none), or choose another one",
        taken.trunc()
    )
}

/// Why `network` can't exist beside `others`, if so. One of its own name is not counted.
pub(super) fn clash<'a>(
    network: &Network,
    others: impl IntoIterator<Item = &'a Network>,
) -> Option<String> {
    let mut others = others.into_iter().filter(|other| other.name != network.name);
    others.find_map(|other| network.clash(other))
}
