//! Subnets whose addresses netd assigns for networks that other programs make.

use std::net::IpAddr;

use ipnet::IpNet;

use super::node_state::NodeState;
use crate::node::error::{Error, Result};
use netd_domain::{Network, ipam::ExternalPool, network::overlap};

impl NodeState {
    /// Reserves an address of `part` of an external subnet.
    ///
    /// # Errors
    /// [`Error::External`]; [`Error::NetworkExists`]: the subnet overlaps with another one.
    pub(crate) fn reserve_external(
        &self,
        subnet: IpNet,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr> {
        let mut inner = self.inner.lock();
        if !inner.external.contains_key(&subnet) {
            let others = inner.external.keys();
            let ranges: Vec<IpNet> =
                inner.networks.values().flat_map(|n| n.network.ranges()).collect();
            if let Some(other) = others.chain(&ranges).find(|other| overlap(other, &subnet)) {
                let text = format!(
                    "{subnet} overlaps with {other}, whose addresses netd assigns already; choose \
                     another subnet (`netd network list` shows them)"
                );
                return Err(Error::NetworkExists(text));
            }
        }
        let pool = inner.external.entry(subnet).or_insert_with(|| ExternalPool::new(subnet));
        let given = pool.reserve(part, wanted);
        if pool.used() == 0 {
            inner.external.remove(&subnet);
        }
        given.map_err(|source| Error::External { subnet, source })
    }

    /// Frees an address of an external subnet; the store has it no longer.
    pub(crate) fn release_external(&self, subnet: IpNet, ip: IpAddr) {
        let mut inner = self.inner.lock();
        let Some(pool) = inner.external.get_mut(&subnet) else { return };
        pool.release(ip);
        if pool.used() == 0 {
            inner.external.remove(&subnet);
        }
    }

    /// Takes over what the store has.
    pub(crate) fn restore_external(&self, subnet: IpNet, ip: IpAddr) {
        let mut inner = self.inner.lock();
        inner.external.entry(subnet).or_insert_with(|| ExternalPool::new(subnet)).restore(ip);
    }

    /// The external subnet of which this address is in use.
    pub(crate) fn external_subnet_of(&self, ip: IpAddr) -> Option<IpNet> {
        let inner = self.inner.lock();
        inner.external.values().find(|pool| pool.is_used(ip)).map(ExternalPool::subnet)
    }

    /// Whether an address of this subnet is to be taken from an external pool: no network
    /// has just this subnet, or addresses of it were reserved before a network had it.
    pub(crate) fn is_external(&self, subnet: &IpNet) -> bool {
        let inner = self.inner.lock();
        let own = |n: &Network| n.pools.iter().any(|pool| pool.subnet == *subnet);
        inner.external.contains_key(subnet) || !inner.networks.values().any(|n| own(&n.network))
    }

    /// The external subnets, each with the number of its addresses in use.
    pub(crate) fn external_pools(&self) -> Vec<(IpNet, usize)> {
        let inner = self.inner.lock();
        inner.external.values().map(|pool| (pool.subnet(), pool.used())).collect()
    }

    /// The external subnet that a network would overlap with.
    pub(crate) fn external_clash(&self, network: &Network) -> Option<IpNet> {
        let (inner, ranges) = (self.inner.lock(), network.ranges());
        let overlaps = |subnet: &&IpNet| ranges.iter().any(|range| overlap(range, subnet));
        inner.external.keys().find(overlaps).copied()
    }
}
