//! Addresses reserved for endpoints that are still to be created, and changes of host
//! ports.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::node_state::{Inner, NodeState};
use crate::node::error::{Error, Result};
use netd_domain::{AttachSpec, Driver, Endpoint, EndpointKey, Invalid, NetworkName};

/// A reserved address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressReservation {
    /// Its network.
    pub network: NetworkName,
    /// With the prefix length that an interface gets.
    pub address: IpNet,
}

/// Who has an address that is to be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AddressOwner {
    /// It is not reserved, and no endpoint has it.
    None,
    /// It was reserved until now; the store still has the reservation.
    Reservation(NetworkName),
    /// An endpoint has it.
    Endpoint(EndpointKey),
}

impl Inner {
    /// Frees those of the requested addresses that are reserved, and returns them.
    pub(super) fn take_reserved(&mut self, spec: &AttachSpec) -> Vec<IpAddr> {
        let mut taken = Vec::new();
        for ip in &spec.addresses {
            if self.reservations.remove(&(spec.network.clone(), *ip)).is_some() {
                self.allocators.get_mut(&spec.network).map(|a| a.release(*ip));
                taken.push(*ip);
            }
        }
        taken
    }

    /// Undoes [`Inner::take_reserved`].
    pub(super) fn restore_reservations(&mut self, network: &NetworkName, ips: &[IpAddr]) {
        for ip in ips {
            let Some(allocator) = self.allocators.get_mut(network) else { continue };
            if allocator.allocate_within(IpNet::from(*ip), Some(*ip)).is_ok() {
                self.reservations.insert((network.clone(), *ip), Instant::now());
            }
        }
    }

    fn network_of(&self, part: &IpNet) -> Option<NetworkName> {
        let within = |subnet: &IpNet| subnet.contains(part);
        let mut all = self.networks.values();
        let found = all.find(|n| n.network.pools.iter().any(|p| within(&p.subnet)));
        found.map(|n| n.network.name.clone())
    }
}

impl NodeState {
    /// Replaces the host ports of `old` by those of `next`; all or nothing.
    ///
    /// # Errors
    /// [`Error::PortTaken`].
    pub(crate) fn change_ports(&self, old: &Endpoint, next: &Endpoint) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.ports.release(&old.key, &old.wiring.port_mappings);
        let taken = inner.ports.take(&next.key, &next.wiring.port_mappings);
        let Err((port, holder)) = taken else { return Ok(()) };
        // They were taken by this endpoint a moment ago, under the same lock.
        drop(inner.ports.take(&old.key, &old.wiring.port_mappings));
        Err(Error::PortTaken { port, holder })
    }

    /// The network that has this subnet, or address, in one of its pools.
    pub(crate) fn network_of(&self, part: &IpNet) -> Option<NetworkName> {
        self.inner.lock().network_of(part)
    }

    /// Reserves one address of `part`.
    ///
    /// # Errors
    /// No network has the subnet, or it has no such address to give.
    pub(crate) fn reserve_address(
        &self,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<AddressReservation> {
        let mut inner = self.inner.lock();
        let Some(network) = inner.network_of(&part) else {
            let text = format!("{part} is in no pool of any network; `netd network list`");
            return Err(Invalid::field("subnet", text).into());
        };
        let missing = || Error::NoNetwork(network.clone());
        let state = inner.networks.get(&network).cloned().ok_or_else(missing)?;
        let allocator = inner.allocators.get_mut(&network).ok_or_else(missing)?;
        let given = allocator.allocate_within(part, wanted);
        let given = given.map_err(|source| inner.no_address(&network, source))?;
        inner.reservations.insert((network.clone(), given.ip), Instant::now());
        let prefix = state.network.pools.get(given.pool_index).map(|p| p.subnet.prefix_len());
        let address = match (state.network.driver, prefix) {
            (Driver::Bridge, Some(length)) => IpNet::new(given.ip, length).ok(),
            _ => None,
        };
        Ok(AddressReservation { network, address: address.unwrap_or_else(|| given.ip.into()) })
    }

    /// Ends a reservation that the store does not have, or no longer has. `taken`: according
    /// to the store the address is in use.
    pub(crate) fn end_reservation(&self, network: &NetworkName, ip: IpAddr, taken: bool) {
        let mut inner = self.inner.lock();
        inner.reservations.remove(&(network.clone(), ip));
        if !taken && let Some(allocator) = inner.allocators.get_mut(network) {
            allocator.release(ip);
        }
    }

    /// Who has an address. If it is reserved, the reservation is removed here, so that only
    /// one caller gets it; the address stays in use until [`NodeState::end_reservation`].
    pub(crate) fn release_address(&self, ip: IpAddr) -> AddressOwner {
        let mut inner = self.inner.lock();
        let Some(network) = inner.network_of(&ip.into()) else { return AddressOwner::None };
        if inner.reservations.remove(&(network.clone(), ip)).is_some() {
            return AddressOwner::Reservation(network);
        }
        let mut all = inner.endpoints.values().map(|held| &held.endpoint);
        match all.find(|e| e.network == network && e.ips().any(|own| own == ip)) {
            Some(endpoint) => AddressOwner::Endpoint(endpoint.key.clone()),
            None => AddressOwner::None,
        }
    }

    /// Restores a reservation that [`NodeState::release_address`] removed and the store still
    /// has.
    pub(crate) fn restore_reservation(&self, network: &NetworkName, ip: IpAddr) {
        self.inner.lock().reservations.insert((network.clone(), ip), Instant::now());
    }

    /// Addresses that have been reserved for `grace` or longer; all of `network`, if given.
    pub(crate) fn old_reservations(
        &self,
        network: Option<&NetworkName>,
        grace: Duration,
    ) -> Vec<IpAddr> {
        let inner = self.inner.lock();
        let reservations = inner.reservations.iter().filter(|((of, _), since)| match network {
            Some(name) => name == of,
            None => since.elapsed() >= grace,
        });
        reservations.map(|((_, ip), _)| *ip).collect()
    }
}
