//! The node's state in memory: written after the store has it, rebuilt from it at start.

mod holds;
mod networks;
mod reserve;
mod sandboxes;
mod tombstones;

pub use holds::{Hold, Holder};
pub use reserve::Site;
pub use sandboxes::is_primary;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    error::Result,
    ports::{HostPorts, shown},
};
use netd_dataplane::FirewallState;
use netd_domain::ipam::NetworkAllocator;
use netd_domain::{
    AttachSpec, Endpoint, EndpointKey, IfName, Network, NetworkName, NetworkWiring, Phase,
    SandboxId, Tombstone, stored::LAST_SEQUENCE,
};

/// How far the kernel's side of an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
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
    Parking,
    /// Out of packets' reach, not yet out of the kernel.
    Parked,
    /// Parking failed; it is tried again.
    ParkFailed,
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
struct Held {
    endpoint: Arc<Endpoint>,
    work: Work,
}

#[derive(Debug, Default)]
struct Inner {
    networks: BTreeMap<NetworkName, NetworkState>,
    allocators: HashMap<NetworkName, NetworkAllocator>,
    endpoints: BTreeMap<EndpointKey, Held>,
    by_host: HashMap<IfName, EndpointKey>,
    detaching: HashSet<EndpointKey>,
    ports: HostPorts,
    /// Addresses that a runtime reserved and that no endpoint has; since when.
    holds: HashMap<(NetworkName, IpAddr), Instant>,
    tombstones: HashMap<EndpointKey, Tombstone>,
    sources: HashMap<String, HashSet<SandboxId>>,
    sequence: u64,
}

/// See the module's text. Locks are held for map operations only, never over an await.
#[derive(Debug, Default)]
pub struct Registry {
    inner: Mutex<Inner>,
}

/// What the registry is rebuilt from.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Decoded endpoint records.
    pub endpoints: Vec<Endpoint>,
    /// Decoded tombstones.
    pub tombstones: Vec<Tombstone>,
    /// Every address that the store says is held, by network.
    pub held: Vec<(NetworkName, IpAddr)>,
    /// Of those, the ones that are reserved.
    pub reserved: Vec<(NetworkName, IpAddr)>,
}

impl Inner {
    fn next_sequence(&mut self) -> u64 {
        // Only a damaged record brings it to the end; then releases lose their order.
        self.sequence = (self.sequence + 1).min(LAST_SEQUENCE);
        self.sequence
    }

    fn forget(&mut self, endpoint: &Endpoint) {
        self.endpoints.remove(&endpoint.key);
        self.detaching.remove(&endpoint.key);
        self.by_host.remove(&endpoint.wiring.host_ifname);
        self.ports.give_back(&endpoint.key, &endpoint.wiring.port_mappings);
    }

    fn insert(&mut self, endpoint: Arc<Endpoint>, work: Work) {
        self.by_host.insert(endpoint.wiring.host_ifname.clone(), endpoint.key.clone());
        if endpoint.phase == Phase::Detaching {
            self.detaching.insert(endpoint.key.clone());
        }
        self.endpoints.insert(endpoint.key.clone(), Held { endpoint, work });
    }
}

impl Registry {
    /// Takes over what the store holds. `networks` are all known by now.
    pub fn load(&self, loaded: Loaded) {
        let mut inner = self.inner.lock();
        let newest = loaded.endpoints.iter().map(|e| e.sequence);
        let newest = newest.chain(loaded.tombstones.iter().map(|t| t.sequence)).max();
        inner.sequence = newest.unwrap_or(0).max(inner.sequence);
        let mut freed: Vec<&Tombstone> = loaded.tombstones.iter().collect();
        freed.sort_by_key(|t| t.sequence);
        let names: Vec<_> = inner.networks.keys().cloned().collect();
        for name in names {
            let Some(state) = inner.networks.get(&name).cloned() else { continue };
            // One whose network was refused may have an address of any other.
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
            let used =
                used.chain(loaded.held.iter().filter(|(n, _)| *n == name).map(|(_, ip)| *ip));
            let given_back = freed.iter().filter(|t| t.network.as_ref() == Some(&name));
            let given_back = given_back.flat_map(|t| t.addresses.iter().copied());
            let pools = &state.network.pools;
            let allocator = NetworkAllocator::restore(pools, used, given_back, &last);
            inner.allocators.insert(name, allocator);
        }
        for endpoint in loaded.endpoints {
            // Rules are made for what is wanted only: what is on its way out has no ports.
            let wanted = endpoint.phase == Phase::Attached;
            let ports = if wanted { endpoint.wiring.port_mappings.as_slice() } else { &[] };
            if let Err((port, holder)) = inner.ports.take(&endpoint.key, ports) {
                tracing::warn!(endpoint = %endpoint.key, port = shown(&port), %holder,
                    "two endpoints hold one host port");
            }
            let work = match endpoint.phase {
                Phase::Attached => Work::Attaching,
                Phase::Detaching => Work::ParkFailed,
            };
            inner.insert(Arc::new(endpoint), work);
        }
        let now = Instant::now();
        inner.holds.extend(loaded.reserved.into_iter().map(|hold| (hold, now)));
        let tombstones = loaded.tombstones.into_iter().map(|t| (t.key.clone(), t));
        inner.tombstones.extend(tombstones);
    }

    /// Chooses everything for an attach and holds it; see [`Registry::drop_reservation`].
    ///
    /// # Errors
    /// No network, no address, a host port or name that is held.
    pub fn reserve(&self, spec: &AttachSpec, site: Site) -> Result<Arc<Endpoint>> {
        self.inner.lock().reserve(spec, site)
    }

    /// Undoes [`Registry::reserve`]; addresses in `keep` stay in use (the store says so),
    /// and those that the runtime reserved are again.
    pub fn drop_reservation(&self, endpoint: &Endpoint, keep: &[IpAddr]) {
        let mut inner = self.inner.lock();
        inner.forget(endpoint);
        let leased = endpoint.moved.as_ref().map(|m| m.leased.as_slice()).unwrap_or_default();
        for ip in endpoint.ips().filter(|ip| !keep.contains(ip)) {
            if leased.contains(&ip) {
                inner.holds.insert((endpoint.network.clone(), ip), Instant::now());
            } else if let Some(allocator) = inner.allocators.get_mut(&endpoint.network) {
                allocator.release(ip);
            }
        }
    }

    /// One endpoint and how far it is.
    pub fn endpoint(&self, key: &EndpointKey) -> Option<(Arc<Endpoint>, Work)> {
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
    pub fn endpoints(&self) -> Vec<(Arc<Endpoint>, Work)> {
        let inner = self.inner.lock();
        inner.endpoints.values().map(|h| (h.endpoint.clone(), h.work.clone())).collect()
    }

    /// Those being removed.
    pub fn detaching(&self) -> Vec<(Arc<Endpoint>, Work)> {
        let inner = self.inner.lock();
        let held = inner.detaching.iter().filter_map(|key| inner.endpoints.get(key));
        held.map(|h| (h.endpoint.clone(), h.work.clone())).collect()
    }

    /// Replaces a record after the store has it.
    pub fn update(&self, endpoint: Arc<Endpoint>, work: Work) {
        self.inner.lock().insert(endpoint, work);
    }

    /// Replaces a record after the store has it; how far it is stays as it is by now.
    pub fn replace(&self, endpoint: Arc<Endpoint>) {
        if let Some(held) = self.inner.lock().endpoints.get_mut(&endpoint.key) {
            held.endpoint = endpoint;
        }
    }

    /// Notes how far an endpoint is.
    pub fn set_work(&self, key: &EndpointKey, work: Work) {
        let mut inner = self.inner.lock();
        let Some(held) = inner.endpoints.get_mut(key) else { return };
        let endpoint = held.endpoint.clone();
        held.work = work.clone();
        if work == Work::Parked {
            // Its rules are gone; only the link and the addresses are still there.
            inner.ports.give_back(key, &endpoint.wiring.port_mappings);
        }
    }

    /// Its attach failed. If the store could not be told, it has to be told again.
    pub fn unwanted(&self, key: &EndpointKey) {
        let mut inner = self.inner.lock();
        let held = inner.endpoints.get_mut(key);
        if let Some(held) = held.filter(|h| h.endpoint.phase == Phase::Attached) {
            held.work = Work::Unwanted;
        }
    }

    /// What the firewall has to hold: endpoints that are attached or may be. Asked for
    /// on the firewall's thread, and what is only reserved is left out: it may never be.
    pub fn firewall(&self) -> FirewallState {
        let inner = self.inner.lock();
        let networks = inner.networks.values().map(|n| n.wiring.clone()).collect();
        let held = inner.endpoints.values().filter(|h| h.work != Work::Reserved);
        let wanted = held.map(|h| &h.endpoint).filter(|e| e.phase == Phase::Attached);
        let endpoints = wanted.map(|e| Arc::new(e.wiring.clone())).collect();
        FirewallState { networks, endpoints }
    }
}
