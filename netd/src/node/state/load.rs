//! Fills the state from what the store holds, at start.

use std::{net::IpAddr, sync::Arc, time::Instant};

use super::node_state::{KernelStatus, NodeState};
use netd_domain::ipam::NetworkAllocator;
use netd_domain::{Endpoint, NetworkName, Phase, Tombstone};

/// What the state is rebuilt from.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Decoded endpoint records.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Decoded tombstones.
    pub(crate) tombstones: Vec<Tombstone>,
    /// Every address that is in use according to the store, by network.
    pub(crate) used_addresses: Vec<(NetworkName, IpAddr)>,
    /// Of those, the ones that are reserved.
    pub(crate) reserved: Vec<(NetworkName, IpAddr)>,
}

impl NodeState {
    /// Takes over what the store has. All networks have been added before.
    pub(crate) fn load(&self, loaded: Loaded) {
        let mut inner = self.inner.lock();
        let newest = loaded.endpoints.iter().map(|e| e.sequence);
        let newest = newest.chain(loaded.tombstones.iter().map(|t| t.sequence)).max();
        inner.sequence = newest.unwrap_or(0).max(inner.sequence);
        let mut freed: Vec<&Tombstone> = loaded.tombstones.iter().collect();
        freed.sort_by_key(|t| t.sequence);
        let names: Vec<_> = inner.networks.keys().cloned().collect();
        for name in names {
            let Some(state) = inner.networks.get(&name).cloned() else { continue };
            // An endpoint whose network was refused may have an address of any other.
            let homeless = |e: &Endpoint| !inner.networks.contains_key(&e.network);
            let here = |e: &&Endpoint| e.network == name || homeless(e);
            let here = loaded.endpoints.iter().filter(here);
            let mut last: Vec<&Endpoint> = here.clone().collect();
            last.sort_by_key(|e| std::cmp::Reverse(e.sequence));
            let last: Vec<IpAddr> = [true, false]
                .iter()
                .filter_map(|v4| last.iter().flat_map(|e| e.ips()).find(|ip| ip.is_ipv4() == *v4))
                .collect();
            let used = here.flat_map(Endpoint::ips);
            let used = used
                .chain(loaded.used_addresses.iter().filter(|(n, _)| *n == name).map(|(_, ip)| *ip));
            let given_back = freed.iter().filter(|t| t.network.as_ref() == Some(&name));
            let given_back = given_back.flat_map(|t| t.addresses.iter().copied());
            let pools = &state.network.pools;
            let allocator = NetworkAllocator::restore(pools, used, given_back, &last);
            inner.allocators.insert(name, allocator);
        }
        for endpoint in loaded.endpoints {
            // An endpoint that is being removed has no rules, and so no ports.
            let wanted = endpoint.phase == Phase::Attached;
            let ports = if wanted { endpoint.wiring.port_mappings.as_slice() } else { &[] };
            if let Err((port, holder)) = inner.ports.take(&endpoint.key, ports) {
                tracing::warn!(endpoint = %endpoint.key, %port, %holder,
                    "host port {port} of {} also belongs to {holder}", endpoint.key);
            }
            let status = match endpoint.phase {
                Phase::Attached => KernelStatus::Attaching,
                Phase::Detaching => KernelStatus::DetachFailed,
            };
            inner.insert(Arc::new(endpoint), status);
        }
        inner.take_foreign();
        let now = Instant::now();
        inner.reservations.extend(loaded.reserved.into_iter().map(|hold| (hold, now)));
        let freed = loaded.tombstones.iter().flat_map(|t| t.addresses.iter().copied());
        freed.for_each(|ip| inner.last_macs.was_of_unknown(ip));
        let tombstones = loaded.tombstones.into_iter().map(|t| (t.key.clone(), t));
        inner.tombstones.extend(tombstones);
    }
}
