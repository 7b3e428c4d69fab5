//! Chooses the addresses, ports and names that an endpoint gets.

use std::{net::IpAddr, sync::Arc};

use super::node_state::{Inner, KernelStatus, NetworkState, NodeState};
use crate::node::{
    clock::now_unix,
    error::{Error, Result},
};
use netd_domain::{
    AttachSpec, Endpoint, EndpointKey, NetnsId, Network, NetworkName, Phase, RequestDigest,
    RuntimePlaced, Stage, attach::Assigned, ipam::IpamError,
};

/// Where a reserved endpoint will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placement {
    /// In this namespace.
    In(NetnsId),
    /// In this namespace, to which the request's path does not lead netd.
    InForeign(NetnsId),
    /// In no sandbox yet: a runtime will move it into one.
    Unplaced,
}

impl Placement {
    fn netns(self) -> Option<NetnsId> {
        match self {
            Self::In(netns) | Self::InForeign(netns) => Some(netns),
            Self::Unplaced => None,
        }
    }
}

impl Inner {
    /// Chooses addresses, host ports and the host's interface name; all or nothing.
    pub(super) fn reserve(&mut self, spec: &AttachSpec, site: Placement) -> Result<Arc<Endpoint>> {
        let state = self.networks.get(&spec.network).cloned();
        let state = state.ok_or_else(|| Error::NoNetwork(spec.network.clone()))?;
        spec.check_access(&state.network)?;
        if state.network.pools.is_empty() {
            let why = no_subnet(&state.network);
            return Err(Error::NoSubnet { network: spec.network.clone(), why });
        }
        let host = spec.key.host_ifname();
        if let Some(other) = self.key_by_host_ifname.get(&host).filter(|other| **other != spec.key)
        {
            return Err(Error::HostNameTaken { ifname: host.to_string(), other: other.clone() });
        }
        self.ports
            .take(&spec.key, &spec.port_mappings)
            .map_err(|(port, holder)| Error::PortTaken { port, holder })?;
        let leased =
            if site == Placement::Unplaced { self.take_reserved(spec) } else { Vec::new() };
        let assigned = self.allocate(spec, site);
        let endpoint = assigned.and_then(|ips| self.assemble(spec, site, &state, &ips));
        let mut endpoint = endpoint.inspect_err(|_| {
            self.ports.release(&spec.key, &spec.port_mappings);
            self.restore_reservations(&spec.network, &leased);
        })?;
        if site == Placement::Unplaced {
            let wiring = Arc::make_mut(&mut endpoint.wiring);
            let routes = std::mem::take(&mut wiring.routes);
            wiring.ifname = spec.key.staging_ifname();
            let stage = Stage::Created;
            endpoint.runtime_placed =
                Some(RuntimePlaced { stage, routes, is_gateway: false, leased });
        }
        let endpoint = Arc::new(endpoint);
        self.insert(endpoint.clone(), KernelStatus::Reserved);
        Ok(endpoint)
    }

    fn allocate(&mut self, spec: &AttachSpec, site: Placement) -> Result<Vec<(IpAddr, usize)>> {
        let Some(allocator) = self.allocators.get_mut(&spec.network) else {
            return Err(Error::NoNetwork(spec.network.clone()));
        };
        // A runtime that places the endpoint itself has asked for an address of each family that
        // it knows of: it would refuse another one, or be surprised by it.
        let given = match site {
            Placement::Unplaced => allocator.allocate_only(&spec.addresses),
            Placement::In(_) | Placement::InForeign(_) => allocator.allocate(&spec.addresses),
        };
        let given = given.map_err(|source| self.no_address(&spec.network, source))?;
        Ok(given.into_iter().map(|a| (a.ip, a.pool_index)).collect())
    }

    /// Why the allocator gave no address; one that a pod without a record has is named.
    pub(super) fn no_address(&self, network: &NetworkName, source: IpamError) -> Error {
        if let IpamError::Taken { ip } = source
            && let Some(holder) = self.foreign_holder(ip)
        {
            return Error::AddressForeign { network: network.clone(), ip, holder };
        }
        Error::Ipam { network: network.clone(), source }
    }

    /// Whether the sandbox has, or is getting, other endpoints than `key`.
    fn has_others(&self, key: &EndpointKey) -> bool {
        let from = EndpointKey::before_all(key.sandbox.clone());
        let all = self.endpoints.range(from..).map(|(_, entry)| &entry.endpoint);
        let mut here = all.take_while(|endpoint| endpoint.key.sandbox == key.sandbox);
        here.any(|endpoint| endpoint.key != *key && endpoint.phase == Phase::Attached)
    }

    /// Makes the record; frees the addresses if the request does not fit the network.
    fn assemble(
        &mut self,
        spec: &AttachSpec,
        site: Placement,
        state: &NetworkState,
        ips: &[(IpAddr, usize)],
    ) -> Result<Endpoint> {
        let pools = &state.network.pools;
        let assigned: Vec<_> = ips
            .iter()
            .filter_map(|(ip, i)| Some(Assigned { ip: *ip, pool: pools.get(*i)? }))
            .collect();
        let first = !self.has_others(&spec.key);
        let wiring = spec.build_wiring(&state.network, &assigned, state.wiring.mtu, first);
        let wiring = wiring.inspect_err(|_| {
            for (ip, _) in ips {
                self.allocators.get_mut(&spec.network).map(|a| a.release(*ip));
            }
        })?;
        let mut endpoint = Endpoint {
            key: spec.key.clone(),
            network: spec.network.clone(),
            phase: Phase::Attached,
            netns_path: spec.netns_path.clone(),
            netns: site.netns(),
            path_is_foreign: matches!(site, Placement::InForeign(_)),
            wiring: Arc::new(wiring),
            request: (site != Placement::Unplaced).then(|| RequestDigest::of(spec)),
            fixed_mtu: spec.mtu.is_some(),
            pod: spec.pod.clone(),
            labels: spec.labels.clone(),
            annotations: spec.annotations.clone(),
            dns: spec.dns.clone(),
            created_at: now_unix(),
            issued_at: spec.issued_at,
            source: spec.source.clone(),
            sequence: self.next_sequence(),
            labels_of_api: false,
            named_ports: Vec::new(),
            runtime_placed: None,
        };
        self.describe(&mut endpoint);
        Ok(endpoint)
    }
}

impl NodeState {
    /// Why the network has no address to give; `None`: it has.
    pub(crate) fn obstacle(&self, name: &NetworkName) -> Option<Error> {
        let inner = self.inner.lock();
        let Some(state) = inner.networks.get(name) else {
            return Some(Error::NoNetwork(name.clone()));
        };
        if state.network.pools.is_empty() {
            let why = no_subnet(&state.network);
            return Some(Error::NoSubnet { network: name.clone(), why });
        }
        let source = inner.allocators.get(name)?.full()?;
        Some(Error::Ipam { network: name.clone(), source })
    }

    /// Chooses everything for an attach, which is in use from then on; undone by
    /// [`NodeState::drop_reservation`].
    ///
    /// # Errors
    /// No network, no address, or another endpoint has a host port or the interface name.
    pub(crate) fn reserve(&self, spec: &AttachSpec, site: Placement) -> Result<Arc<Endpoint>> {
        self.inner.lock().reserve(spec, site)
    }
}

/// Why a network whose pools are leased has none.
fn no_subnet(network: &Network) -> String {
    let docker0 = network.leased.iter().flat_map(|leased| &leased.docker0);
    let docker0: Vec<_> = docker0.map(ToString::to_string).collect();
    if docker0.is_empty() {
        return "it waits for its lease, or for what its lease is to be, or docker0 has an address \
                of its subnet; `netd status` says which"
            .into();
    }
    format!(
        "{} is docker0's (overlay.docker0), and pods need another one, which overlay.pod_cidr \
         does not allow, or which is waited for; `netd status` says what for",
        docker0.join(", ")
    )
}
