//! The node's state in memory: written after the store has it, rebuilt from it at start.

mod holds;

pub use holds::{Hold, Holder};

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use super::{
    error::{Error, Result},
    now_unix,
    ports::{HostPorts, shown},
};
use crate::{
    dataplane::FirewallState,
    domain::{
        AttachSpec, Endpoint, EndpointKey, IfName, Moved, NetnsId, Network, NetworkName,
        NetworkWiring, Phase, SandboxId, Stage, Tombstone, attach::Assigned, ids::DEFAULT_IFNAME,
        stored::LAST_SEQUENCE,
    },
    ipam::{NetworkAllocator, PoolUsage},
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

/// Where an endpoint that is reserved is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// In this namespace.
    In(NetnsId),
    /// In no sandbox yet: a runtime will move it there.
    Nowhere,
}

impl Site {
    fn netns(self) -> NetnsId {
        match self {
            Self::In(netns) => netns,
            Self::Nowhere => NetnsId { dev: 0, inode: 0 },
        }
    }
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

    /// Chooses addresses, host ports and the host name; all or nothing.
    fn reserve(&mut self, spec: &AttachSpec, site: Site) -> Result<Arc<Endpoint>> {
        let state = self.networks.get(&spec.network).cloned();
        let state = state.ok_or_else(|| Error::NoNetwork(spec.network.clone()))?;
        if state.network.pools.is_empty() {
            let why = no_subnet(&state.network);
            return Err(Error::NoSubnet { network: spec.network.clone(), why });
        }
        let host = spec.key.host_ifname();
        if let Some(other) = self.by_host.get(&host).filter(|other| **other != spec.key) {
            return Err(Error::HostNameTaken { ifname: host.to_string(), other: other.clone() });
        }
        self.ports
            .take(&spec.key, &spec.port_mappings)
            .map_err(|(port, holder)| Error::PortTaken { port: shown(&port), holder })?;
        let leased = if site == Site::Nowhere { self.take_over(spec) } else { Vec::new() };
        let assigned = self.allocate(spec);
        let endpoint = assigned.and_then(|ips| self.assemble(spec, site, &state, &ips));
        let mut endpoint = endpoint.inspect_err(|_| {
            self.ports.give_back(&spec.key, &spec.port_mappings);
            self.hold_again(&spec.network, &leased);
        })?;
        if site == Site::Nowhere {
            let routes = std::mem::take(&mut endpoint.wiring.routes);
            endpoint.wiring.ifname = spec.key.waiting_ifname();
            endpoint.moved =
                Some(Moved { stage: Stage::Created, routes, leads_out: false, leased });
        }
        let endpoint = Arc::new(endpoint);
        self.insert(endpoint.clone(), Work::Reserved);
        Ok(endpoint)
    }

    fn allocate(&mut self, spec: &AttachSpec) -> Result<Vec<(IpAddr, usize)>> {
        let Some(allocator) = self.allocators.get_mut(&spec.network) else {
            return Err(Error::NoNetwork(spec.network.clone()));
        };
        let given = allocator
            .allocate(&spec.addresses)
            .map_err(|source| Error::Ipam { network: spec.network.clone(), source })?;
        Ok(given.into_iter().map(|a| (a.ip, a.pool_index)).collect())
    }

    /// The record; gives the addresses back when the request does not fit the network.
    fn assemble(
        &mut self,
        spec: &AttachSpec,
        site: Site,
        state: &NetworkState,
        ips: &[(IpAddr, usize)],
    ) -> Result<Endpoint> {
        let pools = &state.network.pools;
        let assigned: Vec<_> = ips
            .iter()
            .filter_map(|(ip, i)| Some(Assigned { ip: *ip, pool: pools.get(*i)? }))
            .collect();
        let wiring = spec.wire(&state.network, &assigned, state.wiring.mtu);
        let wiring = wiring.inspect_err(|_| {
            for (ip, _) in ips {
                self.allocators.get_mut(&spec.network).map(|a| a.release(*ip));
            }
        })?;
        Ok(Endpoint {
            key: spec.key.clone(),
            network: spec.network.clone(),
            phase: Phase::Attached,
            netns_path: spec.netns_path.clone(),
            netns: site.netns(),
            wiring,
            fixed_mtu: spec.mtu.is_some(),
            pod: spec.pod.clone(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            dns: spec.dns.clone(),
            created_at: now_unix(),
            issued_at: spec.issued_at,
            source: spec.source.clone(),
            sequence: self.next_sequence(),
            moved: None,
        })
    }
}

/// Why a network whose pools are leased has none.
fn no_subnet(network: &Network) -> String {
    let docker0 = network.leased.iter().flat_map(|leased| &leased.docker0);
    let docker0: Vec<_> = docker0.map(ToString::to_string).collect();
    if docker0.is_empty() {
        return "its lease is waited for; `netd status` says what for".into();
    }
    format!(
        "{} is docker0's (overlay.docker0), and pods need another one, which overlay.pod_cidr \
         does not allow, or which is waited for; `netd status` says what for",
        docker0.join(", ")
    )
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

    /// Adds or replaces a network. Its addresses in use stay in use.
    pub fn put_network(&self, network: Arc<Network>, wiring: Arc<NetworkWiring>) {
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
    }

    /// Removes a network that has no endpoint; how many it has.
    pub fn retire_network(&self, name: &NetworkName) -> usize {
        let mut inner = self.inner.lock();
        let endpoints = inner.endpoints.values().filter(|h| h.endpoint.network == *name).count();
        if endpoints == 0 {
            inner.networks.remove(name);
            inner.allocators.remove(name);
        }
        endpoints
    }

    /// Replaces a network by one that lacks some of its pools, if no address of those is
    /// in use; whether it was done.
    pub fn shrink_network(&self, network: Arc<Network>, wiring: Arc<NetworkWiring>) -> bool {
        let mut inner = self.inner.lock();
        let name = network.name.clone();
        let Some(old) = inner.networks.get(&name).cloned() else { return false };
        let Some(allocator) = inner.allocators.get(&name) else { return false };
        let stays = |subnet| network.pools.iter().any(|p| p.subnet == subnet);
        let mut going = old.network.pools.iter().map(|p| p.subnet).filter(|s| !stays(*s));
        if !going.all(|subnet| allocator.is_empty(subnet)) {
            return false;
        }
        let allocator = allocator.repool(&network.pools);
        inner.allocators.insert(name.clone(), allocator);
        inner.networks.insert(name, NetworkState { network, wiring });
        true
    }

    /// One network.
    pub fn network(&self, name: &NetworkName) -> Option<NetworkState> {
        self.inner.lock().networks.get(name).cloned()
    }

    /// All networks, by name.
    pub fn networks(&self) -> Vec<NetworkState> {
        self.inner.lock().networks.values().cloned().collect()
    }

    /// How full each pool of a network is.
    pub fn usage(&self, name: &NetworkName) -> Vec<PoolUsage> {
        self.inner.lock().allocators.get(name).map(NetworkAllocator::usage).unwrap_or_default()
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

    /// What is to be left of `endpoint`.
    pub fn make_tombstone(&self, endpoint: &Endpoint) -> Tombstone {
        Tombstone {
            key: endpoint.key.clone(),
            issued_at: endpoint.issued_at,
            released_at: now_unix(),
            network: Some(endpoint.network.clone()),
            addresses: endpoint.ips().collect(),
            sequence: self.inner.lock().next_sequence(),
        }
    }

    /// What is to be left of a detach of nothing.
    pub fn empty_tombstone(&self, key: &EndpointKey, issued_at: u64) -> Tombstone {
        Tombstone {
            key: key.clone(),
            issued_at,
            released_at: now_unix(),
            network: None,
            addresses: vec![],
            sequence: self.inner.lock().next_sequence(),
        }
    }

    /// The link is gone and the store knows: the addresses are free.
    pub fn released(&self, endpoint: &Endpoint, tombstone: Tombstone) {
        self.drop_reservation(endpoint, &[]);
        self.bury(tombstone);
    }

    /// Keeps a tombstone.
    pub fn bury(&self, tombstone: Tombstone) {
        self.inner.lock().tombstones.insert(tombstone.key.clone(), tombstone);
    }

    /// The tombstone of a key.
    pub fn tombstone(&self, key: &EndpointKey) -> Option<Tombstone> {
        self.inner.lock().tombstones.get(key).cloned()
    }

    /// Whether the endpoint, or its whole sandbox, was detached after `issued_at`.
    pub fn is_fenced(&self, key: &EndpointKey, issued_at: u64) -> bool {
        let tombstones = &self.inner.lock().tombstones;
        let later = |key| tombstones.get(key).is_some_and(|t| issued_at < t.issued_at);
        later(key) || later(&EndpointKey::every(key.sandbox.clone()))
    }

    /// Removes a key's tombstone.
    pub fn exhume(&self, key: &EndpointKey) {
        self.inner.lock().tombstones.remove(key);
    }

    /// Tombstones made at or before `limit`, seconds since the Unix epoch.
    pub fn old_tombstones(&self, limit: i64) -> Vec<EndpointKey> {
        let inner = self.inner.lock();
        let old = inner.tombstones.values().filter(|t| t.released_at <= limit);
        old.map(|t| t.key.clone()).collect()
    }

    /// The set of sandboxes that `source` knows; false if there are `most` others already.
    pub fn set_source(&self, source: &str, sandboxes: HashSet<SandboxId>, most: usize) -> bool {
        let sources = &mut self.inner.lock().sources;
        let room = sources.contains_key(source) || sources.len() < most;
        if room {
            sources.insert(source.to_owned(), sandboxes);
        }
        room
    }

    /// How many endpoints a network has.
    pub fn count_in(&self, name: &NetworkName) -> usize {
        self.inner.lock().endpoints.values().filter(|h| h.endpoint.network == *name).count()
    }

    /// Whether any source knows the sandbox.
    pub fn is_known(&self, sandbox: &SandboxId) -> bool {
        self.inner.lock().sources.values().any(|set| set.contains(sandbox))
    }

    /// No source knows the sandbox any more, whatever it said before.
    pub fn forget_sandbox(&self, sandbox: &SandboxId) {
        for set in self.inner.lock().sources.values_mut() {
            set.remove(sandbox);
        }
    }

    /// Whether something of the sandbox was detached, and what is left of it are
    /// additional endpoints only.
    pub fn primary_is_gone(&self, sandbox: &SandboxId) -> bool {
        let rest = self.of_sandbox(sandbox);
        if rest.iter().any(|e| e.phase == Phase::Attached && is_primary(e)) {
            return false;
        }
        rest.iter().any(|e| e.phase == Phase::Detaching)
            || self.inner.lock().tombstones.keys().any(|key| key.sandbox == *sandbox)
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

/// Whether a sandbox ends with this endpoint: the interface that runtimes ask for, or
/// the one that leads out.
pub fn is_primary(endpoint: &Endpoint) -> bool {
    let leads_out = endpoint.wiring.routes.iter().any(|r| r.destination.prefix_len() == 0);
    endpoint.key.ifname.as_str() == DEFAULT_IFNAME || leads_out
}
