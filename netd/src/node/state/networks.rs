//! Networks and their allocators.

use std::sync::Arc;

use ipnet::IpNet;

use super::node_state::{NetworkState, NodeState};
use netd_domain::ipam::{NetworkAllocator, PoolUsage};
use netd_domain::{Network, NetworkName, NetworkWiring};

impl NodeState {
    /// Adds or replaces a network. Its addresses in use stay in use.
    pub(crate) fn put_network(&self, network: Arc<Network>, wiring: Arc<NetworkWiring>) {
        let mut inner = self.inner.lock();
        let name = network.name.clone();
        let same_pools =
            inner.networks.get(&name).is_some_and(|old| old.network.pools == network.pools);
        if !same_pools || !inner.allocators.contains_key(&name) {
            let allocator = match inner.allocators.get(&name) {
                Some(allocator) => allocator.repool(&network.pools),
                None => {
                    let held = inner.endpoints.values().map(|h| &h.endpoint);
                    let used = held.filter(|e| e.network == name).flat_map(|e| e.ips());
                    NetworkAllocator::restore(&network.pools, used, [], &[])
                }
            };
            inner.allocators.insert(name.clone(), allocator);
        }
        inner.networks.insert(name, NetworkState { network, wiring });
        inner.take_foreign();
    }

    /// Removes a network if it has no endpoint; returns how many it has.
    pub(crate) fn retire_network(&self, name: &NetworkName) -> usize {
        let mut inner = self.inner.lock();
        let endpoints = inner.endpoints.values().filter(|h| h.endpoint.network == *name).count();
        if endpoints == 0 {
            inner.networks.remove(name);
            inner.allocators.remove(name);
            inner.untake_foreign(name);
        }
        endpoints
    }

    /// Replaces a network by one without some of its pools, if no address of those is in use;
    /// returns whether it did. Nothing is done if no pool is removed.
    pub(crate) fn shrink_network(&self, network: Arc<Network>, wiring: Arc<NetworkWiring>) -> bool {
        let mut inner = self.inner.lock();
        let name = network.name.clone();
        let Some(old) = inner.networks.get(&name).cloned() else { return false };
        let Some(allocator) = inner.allocators.get(&name) else { return false };
        let stays = |subnet| network.pools.iter().any(|p| p.subnet == subnet);
        let going = old.network.pools.iter().map(|p| p.subnet).filter(|s| !stays(*s));
        let going: Vec<_> = going.collect();
        if going.is_empty() || !going.iter().all(|subnet| allocator.is_empty(*subnet)) {
            return false;
        }
        let allocator = allocator.repool(&network.pools);
        inner.allocators.insert(name.clone(), allocator);
        inner.networks.insert(name, NetworkState { network, wiring });
        true
    }

    /// Whether no endpoint of a network has an address in `subnet`, which is or was a pool.
    pub(crate) fn is_unused(&self, name: &NetworkName, subnet: IpNet) -> bool {
        let inner = self.inner.lock();
        inner.allocators.get(name).is_none_or(|allocator| allocator.is_empty(subnet))
    }

    /// One network.
    pub(crate) fn network(&self, name: &NetworkName) -> Option<NetworkState> {
        self.inner.lock().networks.get(name).cloned()
    }

    /// All networks, by name.
    pub(crate) fn networks(&self) -> Vec<NetworkState> {
        self.inner.lock().networks.values().cloned().collect()
    }

    /// How full each pool of a network is.
    pub(crate) fn usage(&self, name: &NetworkName) -> Vec<PoolUsage> {
        self.inner.lock().allocators.get(name).map(NetworkAllocator::usage).unwrap_or_default()
    }

    /// How many endpoints a network has.
    pub(crate) fn count_in(&self, name: &NetworkName) -> usize {
        self.inner.lock().endpoints.values().filter(|h| h.endpoint.network == *name).count()
    }
}
