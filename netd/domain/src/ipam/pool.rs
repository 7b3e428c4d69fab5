//! One pool.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    error::{Family, IpamError, PoolUsage},
    freed::Freed,
    number::{address, bounds, number},
    ranges::Ranges,
};
use crate::Pool;

/// How many freed addresses a pool remembers in order; an address that was freed before
/// those counts as never used. This bounds the memory for addresses that are not in use.
pub(crate) const MAX_FREED: usize = 65_536;

/// The addresses of one [`Pool`].
///
/// Invariant: every address that the pool may give out is in exactly one of
/// `fresh`, `freed` and `used`, and no other address is in any.
#[derive(Debug, Clone)]
pub(crate) struct PoolAllocator {
    pool: Pool,
    size: u128,
    fresh: Ranges,
    freed: Freed,
    used: HashSet<u128>,
    max_freed: usize,
}

impl PoolAllocator {
    /// A pool of which no address was used yet.
    pub(super) fn new(pool: &Pool) -> Self {
        Self::remembering(pool, MAX_FREED)
    }

    /// As [`Self::new`], remembering the order of `max_freed` freed addresses.
    pub(super) fn remembering(pool: &Pool, max_freed: usize) -> Self {
        let gateway = number(pool.gateway);
        let (network, broadcast) = bounds(&pool.subnet);
        let mut holes: Vec<_> = pool.reserved.iter().map(bounds).collect();
        holes.extend([(gateway, gateway), (network, network)]);
        // IPv6 has no broadcast address: the last one of a subnet can be given out.
        if pool.is_v4() {
            holes.push((broadcast, broadcast));
        }
        // A stored pool may be wrong; an address outside of its subnet is never given out.
        let first = number(pool.range_start).max(network);
        let last = number(pool.range_end).min(broadcast);
        let fresh = Ranges::without(first, last, holes);
        Self {
            pool: pool.clone(),
            size: fresh.count(),
            fresh,
            freed: Freed::default(),
            used: HashSet::new(),
            max_freed,
        }
    }

    pub(super) fn serves(&self, pool: &Pool) -> bool {
        self.pool == *pool
    }

    pub(super) fn used(&self) -> impl Iterator<Item = IpAddr> {
        self.used.iter().map(|n| address(self.family(), *n))
    }

    pub(super) fn family(&self) -> Family {
        if self.pool.is_v4() { Family::V4 } else { Family::V6 }
    }

    pub(super) fn subnet(&self) -> IpNet {
        self.pool.subnet
    }

    /// The first address at or after `from` that was never used.
    pub(super) fn fresh_from(&self, from: IpAddr) -> Option<IpAddr> {
        self.fresh.at_or_after(number(from)).map(|n| address(self.family(), n))
    }

    /// A free address of `part`: one that was never used, or else the one that has been free
    /// the longest.
    pub(super) fn free_within(&self, part: &IpNet) -> Option<IpAddr> {
        let (first, last) = bounds(part);
        let fresh = self.fresh.at_or_after(first).filter(|n| *n <= last);
        let free = fresh.or_else(|| self.freed.oldest_within(first, last));
        free.map(|n| address(self.family(), n))
    }

    /// The address that has been free the longest, with the turn of its release.
    pub(super) fn oldest_freed(&self) -> Option<(u64, IpAddr)> {
        self.freed.oldest().map(|(turn, n)| (turn, address(self.family(), n)))
    }

    /// Puts `ip` into use if it is free. Returns whether it was free.
    pub(super) fn take(&mut self, ip: IpAddr) -> bool {
        let n = number(ip);
        let free =
            Family::of(ip) == self.family() && (self.fresh.remove(n) || self.freed.remove(n));
        free && self.used.insert(n)
    }

    /// Gives `ip` back. Returns whether it was in use. `turn` orders releases over all
    /// pools: it must be greater than that of every release before.
    pub(super) fn release(&mut self, ip: IpAddr, turn: u64) -> bool {
        let n = number(ip);
        let held = Family::of(ip) == self.family() && self.used.remove(&n);
        if held {
            self.queue(n, turn);
        }
        held
    }

    /// Notes that `ip` was used before, if it is free: such addresses are given out last.
    pub(super) fn mark_freed(&mut self, ip: IpAddr, turn: u64) -> bool {
        let n = number(ip);
        let free =
            Family::of(ip) == self.family() && (self.fresh.remove(n) || self.freed.contains(n));
        if free {
            self.queue(n, turn);
        }
        free
    }

    fn queue(&mut self, n: u128, turn: u64) {
        self.freed.push(n, turn);
        if self.freed.len() > self.max_freed
            && let Some((_, oldest)) = self.freed.oldest()
        {
            self.freed.remove(oldest);
            self.fresh.insert(oldest);
        }
    }

    pub(super) fn is_used(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family() && self.used.contains(&number(ip))
    }

    /// Whether `ip` may be requested.
    ///
    /// # Errors
    /// [`IpamError::Taken`], or why the pool never gives it out.
    pub(super) fn check(&self, ip: IpAddr) -> Result<(), IpamError> {
        let n = number(ip);
        if self.is_used(ip) {
            return Err(IpamError::Taken { ip });
        }
        if Family::of(ip) == self.family() && (self.fresh.contains(n) || self.freed.contains(n)) {
            return Ok(());
        }
        Err(self.refusal(ip))
    }

    /// Why this pool never gives `ip` out.
    fn refusal(&self, ip: IpAddr) -> IpamError {
        let pool = &self.pool;
        let subnet = pool.subnet;
        if !subnet.contains(&ip) {
            return IpamError::NotInPool { ip, pools: vec![subnet] };
        }
        if ip == pool.gateway {
            return IpamError::IsGateway { ip, subnet };
        }
        let why = if let Some(net) = pool.reserved.iter().find(|net| net.contains(&ip)) {
            format!("in the reserved range {net} of {subnet}")
        } else if ip == subnet.network() {
            format!("the network address of {subnet}")
        } else if ip == subnet.broadcast() && pool.is_v4() {
            format!("the broadcast address of {subnet}")
        } else {
            let (start, end) = (pool.range_start, pool.range_end);
            format!("outside the range {start} to {end} of {subnet}")
        };
        IpamError::Reserved { ip, why }
    }

    pub(super) fn usage(&self) -> PoolUsage {
        PoolUsage {
            subnet: self.pool.subnet,
            size: u64::try_from(self.size).unwrap_or(u64::MAX),
            used: self.used.len() as u64,
        }
    }

    /// Numbers of ranges and of freed addresses: what cost and memory depend on.
    #[cfg(test)]
    pub(super) fn pieces(&self) -> (usize, usize) {
        (self.fresh.pieces(), self.freed.len())
    }

    /// Fresh, freed, used and all addresses, to check the invariant.
    #[cfg(test)]
    pub(super) fn census(&self) -> (u128, usize, usize, u128) {
        (self.fresh.count(), self.freed.len(), self.used.len(), self.size)
    }
}
