//! The node's state in memory: written after the store has it, rebuilt from it at start.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use crate::node::ports::HostPorts;
use netd_dataplane::FirewallState;
use netd_domain::ipam::NetworkAllocator;
use netd_domain::{
    Endpoint, EndpointKey, IfName, Network, NetworkName, NetworkWiring, Phase, SandboxId,
    Tombstone, stored::LAST_SEQUENCE,
};

/// How far the kernel's side of an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelStatus {
    /// Chosen; the store does not have it yet, and nothing may be made of it.
    Reserved,
    /// Being made or repaired.
    Attaching,
    /// The kernel matches, as far as is known.
    Attached,
    /// It could not be made; it is tried again.
    Failed(String),
    /// Its attach failed and the store could not be told: it is to be detached.
    Unwanted,
    /// On its way out of packets' reach.
    DetachingLink,
    /// Out of packets' reach, not yet out of the kernel.
    LinkDetached,
    /// DetachingLink failed; it is tried again.
    DetachFailed,
}

/// A network with what follows from it.
#[derive(Debug, Clone)]
pub struct NetworkState {
    /// As configured.
    pub network: Arc<Network>,
    /// With the MTU in force.
    pub wiring: Arc<NetworkWiring>,
}

#[derive(Debug)]
pub(super) struct EndpointEntry {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) work: KernelStatus,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) networks: BTreeMap<NetworkName, NetworkState>,
    pub(super) allocators: HashMap<NetworkName, NetworkAllocator>,
    pub(super) endpoints: BTreeMap<EndpointKey, EndpointEntry>,
    pub(super) by_host: HashMap<IfName, EndpointKey>,
    pub(super) detaching: HashSet<EndpointKey>,
    pub(super) ports: HostPorts,
    /// Addresses that a runtime reserved and no endpoint uses; since when.
    pub(super) reservations: HashMap<(NetworkName, IpAddr), Instant>,
    pub(super) tombstones: HashMap<EndpointKey, Tombstone>,
    pub(super) sources: HashMap<String, HashSet<SandboxId>>,
    pub(super) sequence: u64,
}

/// See the module's text. Locks are held for map operations only, never over an await.
#[derive(Debug, Default)]
pub struct NodeState {
    pub(super) inner: Mutex<Inner>,
}

impl Inner {
    pub(super) fn next_sequence(&mut self) -> u64 {
        // Only a damaged record brings it to the end; then releases lose their order.
        self.sequence = (self.sequence + 1).min(LAST_SEQUENCE);
        self.sequence
    }

    pub(super) fn forget(&mut self, endpoint: &Endpoint) {
        self.endpoints.remove(&endpoint.key);
        self.detaching.remove(&endpoint.key);
        self.by_host.remove(&endpoint.wiring.host_ifname);
        self.ports.give_back(&endpoint.key, &endpoint.wiring.port_mappings);
    }

    pub(super) fn insert(&mut self, endpoint: Arc<Endpoint>, work: KernelStatus) {
        self.by_host.insert(endpoint.wiring.host_ifname.clone(), endpoint.key.clone());
        if endpoint.phase == Phase::Detaching {
            self.detaching.insert(endpoint.key.clone());
        }
        self.endpoints.insert(endpoint.key.clone(), EndpointEntry { endpoint, work });
    }
}

impl NodeState {
    /// Undoes [`NodeState::reserve`]; addresses in `keep` stay in use (the store says so),
    /// and those that the runtime reserved are again.
    pub fn drop_reservation(&self, endpoint: &Endpoint, keep: &[IpAddr]) {
        let mut inner = self.inner.lock();
        inner.forget(endpoint);
        let leased = endpoint.moved.as_ref().map(|m| m.leased.as_slice()).unwrap_or_default();
        for ip in endpoint.ips().filter(|ip| !keep.contains(ip)) {
            if leased.contains(&ip) {
                inner.reservations.insert((endpoint.network.clone(), ip), Instant::now());
            } else if let Some(allocator) = inner.allocators.get_mut(&endpoint.network) {
                allocator.release(ip);
            }
        }
    }

    /// One endpoint and how far it is.
    pub fn endpoint(&self, key: &EndpointKey) -> Option<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        inner.endpoints.get(key).map(|h| (h.endpoint.clone(), h.work.clone()))
    }

    /// The endpoint whose host side has this name.
    pub fn by_host(&self, ifname: &IfName) -> Option<EndpointKey> {
        self.inner.lock().by_host.get(ifname).cloned()
    }

    /// Every endpoint of a sandbox.
    pub fn of_sandbox(&self, sandbox: &SandboxId) -> Vec<Arc<Endpoint>> {
        let inner = self.inner.lock();
        // Keys are ordered by sandbox first: start at its least possible interface name.
        let from = "!".parse().map(|ifname| EndpointKey { sandbox: sandbox.clone(), ifname });
        let Ok(from) = from else { return Vec::new() };
        let held = inner.endpoints.range(from..).map(|(_, h)| &h.endpoint);
        held.take_while(|e| e.key.sandbox == *sandbox).cloned().collect()
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> Vec<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        inner.endpoints.values().map(|h| (h.endpoint.clone(), h.work.clone())).collect()
    }

    /// Those being removed.
    pub fn detaching(&self) -> Vec<(Arc<Endpoint>, KernelStatus)> {
        let inner = self.inner.lock();
        let held = inner.detaching.iter().filter_map(|key| inner.endpoints.get(key));
        held.map(|h| (h.endpoint.clone(), h.work.clone())).collect()
    }

    /// Replaces a record after the store has it.
    pub fn update(&self, endpoint: Arc<Endpoint>, work: KernelStatus) {
        self.inner.lock().insert(endpoint, work);
    }

    /// Replaces a record after the store has it; how far it is stays as it is by now.
    pub fn replace(&self, endpoint: Arc<Endpoint>) {
        if let Some(held) = self.inner.lock().endpoints.get_mut(&endpoint.key) {
            held.endpoint = endpoint;
        }
    }

    /// Notes how far an endpoint is.
    pub fn set_status(&self, key: &EndpointKey, work: KernelStatus) {
        let mut inner = self.inner.lock();
        let Some(held) = inner.endpoints.get_mut(key) else { return };
        let endpoint = held.endpoint.clone();
        held.work = work.clone();
        if work == KernelStatus::LinkDetached {
            // Its rules are gone; only the link and the addresses are still there.
            inner.ports.give_back(key, &endpoint.wiring.port_mappings);
        }
    }

    /// Its attach failed. If the store could not be told, it has to be told again.
    pub fn unwanted(&self, key: &EndpointKey) {
        let mut inner = self.inner.lock();
        let held = inner.endpoints.get_mut(key);
        if let Some(held) = held.filter(|h| h.endpoint.phase == Phase::Attached) {
            held.work = KernelStatus::Unwanted;
        }
    }

    /// What the firewall has to hold: endpoints that are attached or may be. Asked for
    /// on the firewall's thread, and what is only reserved is left out: it may never be.
    pub fn firewall(&self) -> FirewallState {
        let inner = self.inner.lock();
        let networks = inner.networks.values().map(|n| n.wiring.clone()).collect();
        let held = inner.endpoints.values().filter(|h| h.work != KernelStatus::Reserved);
        let wanted = held.map(|h| &h.endpoint).filter(|e| e.phase == Phase::Attached);
        let endpoints = wanted.map(|e| Arc::new(e.wiring.clone())).collect();
        FirewallState { networks, endpoints }
    }
}
