//! Networks, endpoints, and what is in use: see [`NodeState`].

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use ipnet::IpNet;
use parking_lot::Mutex;

use super::{foreign_entry::ForeignEntry, last_macs::LastMacs};
use crate::node::ports::HostPorts;
use netd_dataplane::FirewallState;
use netd_domain::ipam::{ExternalPool, NetworkAllocator};
use netd_domain::{
    Endpoint, EndpointKey, IfName, Network, NetworkName, NetworkWiring, Phase, SandboxId,
    Tombstone, Wiring, stored::MAX_SEQUENCE,
};
use netd_kubernetes::pods::Pods;

/// The status of an endpoint in the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelStatus {
    /// Its addresses are chosen. The store does not have it yet, so nothing may be made.
    Reserved,
    /// It is being made or repaired.
    Attaching,
    /// The kernel matches the record, as far as is known.
    Attached,
    /// It could not be made; it is tried again.
    Failed(String),
    /// Its attach failed, and that could not be recorded: it has to be detached.
    Unwanted,
    /// Its link is being detached, so that packets no longer reach the pod.
    DetachingLink,
    /// Its link is detached and not deleted yet.
    LinkDetached,
    /// Its link could not be detached; it is tried again.
    DetachFailed,
}

/// A network with what follows from it.
#[derive(Debug, Clone)]
pub struct NetworkState {
    /// As configured.
    pub network: Arc<Network>,
    /// As made in the kernel, with the MTU in force.
    pub wiring: Arc<NetworkWiring>,
}

#[derive(Debug)]
pub(super) struct EndpointEntry {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) status: KernelStatus,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) networks: BTreeMap<NetworkName, NetworkState>,
    pub(super) allocators: HashMap<NetworkName, NetworkAllocator>,
    pub(super) endpoints: BTreeMap<EndpointKey, EndpointEntry>,
    pub(super) key_by_host_ifname: HashMap<IfName, EndpointKey>,
    pub(super) detaching: HashSet<EndpointKey>,
    pub(super) ports: HostPorts,
    /// Addresses that a runtime reserved and no endpoint uses; since when.
    pub(super) reservations: HashMap<(NetworkName, IpAddr), Instant>,
    /// Subnets whose addresses netd assigns for networks that other programs make.
    pub(super) external: BTreeMap<IpNet, ExternalPool>,
    /// Addresses of pods that netd has no record of.
    pub(super) foreign: BTreeMap<IpAddr, ForeignEntry>,
    /// Those of these pods that netd made, as far as the kernel shows them.
    pub(super) unrecorded_pods: Vec<Arc<Wiring>>,
    pub(super) last_macs: LastMacs,
    pub(super) tombstones: HashMap<EndpointKey, Tombstone>,
    pub(super) sources: HashMap<String, HashSet<SandboxId>>,
    /// This node's pods, as the Kubernetes API has them.
    pub(super) pods: Arc<Pods>,
    pub(super) sequence: u64,
}

/// What the node knows. The lock is held for map operations only, never over an await.
#[derive(Debug, Default)]
pub(crate) struct NodeState {
    pub(super) inner: Mutex<Inner>,
}

impl Inner {
    pub(super) fn next_sequence(&mut self) -> u64 {
        // Only a damaged record makes it reach the end; releases lose their order then.
        self.sequence = (self.sequence + 1).min(MAX_SEQUENCE);
        self.sequence
    }

    pub(super) fn forget(&mut self, endpoint: &Endpoint) {
        self.endpoints.remove(&endpoint.key);
        self.detaching.remove(&endpoint.key);
        self.key_by_host_ifname.remove(&endpoint.wiring.host_ifname);
        self.ports.release(&endpoint.key, &endpoint.wiring.port_mappings);
        self.last_macs.released(&endpoint.wiring);
    }

    pub(super) fn insert(&mut self, endpoint: Arc<Endpoint>, status: KernelStatus) {
        self.key_by_host_ifname.insert(endpoint.wiring.host_ifname.clone(), endpoint.key.clone());
        if endpoint.phase == Phase::Detaching {
            self.detaching.insert(endpoint.key.clone());
        }
        self.endpoints.insert(endpoint.key.clone(), EndpointEntry { endpoint, status });
    }
}

impl NodeState {
    /// Undoes [`NodeState::reserve`]; addresses in `keep` stay in use (the store says so),
    /// and those that the runtime had reserved are reserved again.
    pub(crate) fn drop_reservation(&self, endpoint: &Endpoint, keep: &[IpAddr]) {
        let mut inner = self.inner.lock();
        inner.forget(endpoint);
        let leased = endpoint
            .runtime_placed
            .as_ref()
            .map(|placed| placed.leased.as_slice())
            .unwrap_or_default();
        for ip in endpoint.ips().filter(|ip| !keep.contains(ip)) {
            if leased.contains(&ip) {
                inner.reservations.insert((endpoint.network.clone(), ip), Instant::now());
            } else if let Some(allocator) = inner.allocators.get_mut(&endpoint.network) {
                allocator.release(ip);
            }
        }
        inner.take_foreign();
    }

    /// Whether the neighbours of a new endpoint have to be told its MAC.
    pub(crate) fn is_mac_news(&self, endpoint: &Endpoint) -> bool {
        self.inner.lock().last_macs.are_news(&endpoint.wiring)
    }

    /// One endpoint and its status.
    pub(crate) fn endpoint(&self, key: &EndpointKey) -> Option<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        inner.endpoints.get(key).map(|h| (h.endpoint.clone(), h.status.clone()))
    }

    /// The endpoint whose host side has this name.
    pub(crate) fn key_by_host_ifname(&self, ifname: &IfName) -> Option<EndpointKey> {
        self.inner.lock().key_by_host_ifname.get(ifname).cloned()
    }

    /// Every endpoint of a sandbox.
    pub(crate) fn of_sandbox(&self, sandbox: &SandboxId) -> Vec<Arc<Endpoint>> {
        let inner = self.inner.lock();
        let from = EndpointKey::before_all(sandbox.clone());
        let entries = inner.endpoints.range(from..).map(|(_, h)| &h.endpoint);
        entries.take_while(|e| e.key.sandbox == *sandbox).cloned().collect()
    }

    /// Every endpoint.
    pub(crate) fn endpoints(&self) -> Vec<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        inner.endpoints.values().map(|h| (h.endpoint.clone(), h.status.clone())).collect()
    }

    /// Those being removed.
    pub(crate) fn detaching(&self) -> Vec<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        let entries = inner.detaching.iter().filter_map(|key| inner.endpoints.get(key));
        entries.map(|h| (h.endpoint.clone(), h.status.clone())).collect()
    }

    /// Replaces a record and its status after the store has the record.
    pub(crate) fn update(&self, endpoint: Arc<Endpoint>, status: KernelStatus) {
        self.inner.lock().insert(endpoint, status);
    }

    /// Replaces a record after the store has it; the status stays as it is.
    pub(crate) fn replace(&self, endpoint: Arc<Endpoint>) {
        if let Some(entry) = self.inner.lock().endpoints.get_mut(&endpoint.key) {
            entry.endpoint = endpoint;
        }
    }

    /// Sets an endpoint's status.
    pub(crate) fn set_status(&self, key: &EndpointKey, status: KernelStatus) {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.endpoints.get_mut(key) else { return };
        let endpoint = entry.endpoint.clone();
        entry.status = status.clone();
        if status == KernelStatus::LinkDetached {
            // Its rules are gone; only the link and the addresses remain.
            inner.ports.release(key, &endpoint.wiring.port_mappings);
        }
    }

    /// Notes that the attach failed and that this could not be recorded.
    pub(crate) fn unwanted(&self, key: &EndpointKey) {
        let mut inner = self.inner.lock();
        let entry = inner.endpoints.get_mut(key);
        if let Some(entry) = entry.filter(|h| h.endpoint.phase == Phase::Attached) {
            entry.status = KernelStatus::Unwanted;
        }
    }

    /// What the firewall needs rules for. It is read on the firewall's thread. Endpoints that
    /// are only reserved are left out: they may never be attached. Pods whose records were
    /// lost keep their right to send.
    pub(crate) fn firewall(&self) -> FirewallState {
        let inner = self.inner.lock();
        let networks = inner.networks.values().map(|n| n.wiring.clone()).collect();
        let entries = inner.endpoints.values().filter(|h| h.status != KernelStatus::Reserved);
        let wanted = entries.map(|h| &h.endpoint).filter(|e| e.phase == Phase::Attached);
        let endpoints = wanted.map(|e| e.wiring.clone()).chain(inner.unrecorded_pods.clone());
        let endpoints = endpoints.collect();
        FirewallState { networks, endpoints }
    }
}
