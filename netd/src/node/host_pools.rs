//! Pools that are a network of the host itself: with a gateway's address on the bridge the host
//! could not reach its neighbours any more. Such a pool is withheld from the kernel, unless it
//! was in force before or the network allows it.

use std::sync::Arc;

use ipnet::IpNet;

use super::{
    core::Node,
    error::{Error, Result},
    queue::Target,
    state::NetworkState,
    withheld_pools::Withheld,
};
use netd_dataplane::DOCKER0;
use netd_domain::{HostNetwork, Network, NetworkName, NetworkWiring};

fn component(name: &NetworkName) -> String {
    format!("host-network/{name}")
}

impl Node {
    /// What the kernel has to hold for a network, without the pools that are withheld.
    pub(super) fn wiring_of(&self, network: &Network, mtu: u32) -> NetworkWiring {
        let pools = self.host_pools.lock();
        let withheld =
            pools.withheld.get(&network.name).map(|withheld| withheld.subnets.as_slice());
        network.wiring(mtu).without(withheld.unwrap_or_default())
    }

    /// Why pools of the network are withheld, if some are.
    pub(super) fn withheld(&self, name: &NetworkName) -> Option<String> {
        self.host_pools.lock().withheld.get(name).map(|withheld| withheld.why.clone())
    }

    /// # Errors
    /// [`Error::HostNetwork`]: a pool of the network is withheld.
    pub(super) fn refuse_withheld(&self, name: &NetworkName) -> Result<()> {
        self.withheld(name).map_or(Ok(()), |why| Err(Error::HostNetwork(why)))
    }

    /// The pools of the network are in the kernel.
    pub(super) fn note_in_force(&self, name: &NetworkName, subnets: &[IpNet]) {
        let made = subnets.iter().map(|subnet| (name.clone(), *subnet));
        self.host_pools.lock().in_force.extend(made);
    }

    /// The network is gone.
    pub(super) fn forget_host_pools(&self, name: &NetworkName) {
        let mut pools = self.host_pools.lock();
        pools.in_force.retain(|(of, _)| of != name);
        pools.withheld.remove(name);
        self.health.forget(&component(name));
    }

    /// Decides which pools of a network are withheld, and returns the network as the kernel is
    /// to have it. The caller holds `network_changes`.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub(super) async fn withhold(&self, state: NetworkState) -> Result<NetworkState> {
        let (network, mtu) = (state.network.clone(), state.wiring.mtu);
        self.decide_withheld(&network).await?;
        let wiring = Arc::new(self.wiring_of(&network, mtu));
        if wiring == state.wiring {
            return Ok(state);
        }
        self.state.put_network(network.clone(), wiring.clone());
        self.changed.lock().insert(network.name.clone());
        self.queue.soon(Target::Firewall);
        Ok(NetworkState { network, wiring })
    }

    /// As [`Node::withhold`], before the network is in the state.
    pub(super) async fn decide_withheld(&self, network: &Network) -> Result<()> {
        let name = &network.name;
        let open: Vec<IpNet> = {
            let pools = self.host_pools.lock();
            let all = network.pools.iter().map(|pool| pool.subnet);
            all.filter(|subnet| !pools.in_force.contains(&(name.clone(), *subnet))).collect()
        };
        let (mut subnets, mut reasons) = (vec![], vec![]);
        if !open.is_empty() && !network.allow_host_overlap {
            let hosts = self.foreign_host_networks().await?;
            let present = self.dataplane.gateways(Arc::new(network.wiring(0))).await?;
            for subnet in open {
                let Some(host) = hosts.iter().find(|host| host.is_cut_off_by(&subnet)) else {
                    continue;
                };
                // Pods that run, or a bridge of before: what works must go on working.
                let is_present = present.iter().any(|gateway| subnet.contains(&gateway.addr()));
                if !is_present && self.state.is_unused(name, subnet) {
                    reasons.push(format!("pool {subnet} overlaps with {host}"));
                    subnets.push(subnet);
                }
            }
        }
        let mut pools = self.host_pools.lock();
        pools.withheld.remove(name);
        if !subnets.is_empty() {
            let why = format!(
                "network \"{name}\": {}: the host could not reach that any more; choose another \
                 subnet, or set allow_host_overlap = true in its [[network]] table",
                reasons.join(", ")
            );
            pools.withheld.insert(name.clone(), Withheld { subnets, why });
        }
        Ok(())
    }

    /// The host's networks without those of netd's own bridges and of docker0.
    async fn foreign_host_networks(&self) -> Result<Vec<HostNetwork>> {
        let networks = self.state.networks();
        // docker0's subnets are told apart in other ways: dockerd can be made to give one up.
        let is_own = |host: &HostNetwork| {
            let bridge = |state: &NetworkState| state.network.bridge.as_str() == host.device;
            host.device == DOCKER0 || networks.iter().any(bridge)
        };
        let mut hosts = self.dataplane.host_networks().await?;
        hosts.retain(|host| !is_own(host));
        Ok(hosts)
    }

    /// The host's addresses may have changed: says which pools in force overlap with them, and
    /// looks again at those that are withheld.
    pub(super) async fn report_host_pools(&self) -> Result<()> {
        let hosts = self.foreign_host_networks().await?;
        for state in self.state.networks() {
            let network = &state.network;
            let name = &network.name;
            if self.withheld(name).is_some() {
                self.queue.soon(Target::Network(name.clone()));
            }
            let cut_off = network.pools.iter().filter(|_| !network.allow_host_overlap);
            let mut cut_off = cut_off.filter_map(|pool| {
                let in_force = (name.clone(), pool.subnet);
                let is_in_force = self.host_pools.lock().in_force.contains(&in_force);
                let host = hosts.iter().find(|host| host.is_cut_off_by(&pool.subnet));
                host.filter(|_| is_in_force).map(|host| (pool.subnet, host))
            });
            match cut_off.next() {
                Some((subnet, host)) => self.health.advise(
                    &component(name),
                    format!(
                        "pool {subnet} of network {name} overlaps with {host}: packets for that \
                         go to pods; give the network another pool, or the host another address"
                    ),
                ),
                None => self.health.forget(&component(name)),
            }
        }
        Ok(())
    }
}
