//! A whole network: several pools, two families.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    error::{Family, IpamError, PoolUsage},
    pool::{MAX_FREED, PoolAllocator},
};
use crate::Pool;

/// An address that was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// The address.
    pub ip: IpAddr,
    /// Index of its pool among the network's.
    pub pool_index: usize,
}

/// The addresses of one network.
#[derive(Debug, Clone)]
pub struct NetworkAllocator {
    pools: Vec<PoolAllocator>,
    /// In use, but of none of the pools: left over from pools that the network had before.
    foreign: HashSet<IpAddr>,
    /// For each family: the address given out last without being requested, and its pool.
    cursors: [Option<Allocation>; 2],
    /// Counts releases.
    turn: u64,
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl NetworkAllocator {
    /// An allocator of which no address was used yet.
    pub fn new(pools: &[Pool]) -> Self {
        Self::remembering(pools, MAX_FREED)
    }

    /// As [`Self::new`], remembering the order of `max_freed` freed addresses a pool.
    pub(super) fn remembering(pools: &[Pool], max_freed: usize) -> Self {
        Self {
            pools: pools.iter().map(|p| PoolAllocator::remembering(p, max_freed)).collect(),
            foreign: HashSet::new(),
            cursors: [None, None],
            turn: 0,
        }
    }

    /// Rebuilds an allocator after a restart.
    ///
    /// `used` are all addresses in use; one that the pools can't give out stays in use until
    /// it is released, and changes nothing else. `freed_in_order` are addresses that were
    /// given back, the first freed first. `last` are the addresses given out last, at most
    /// one a family; allocation goes on after them, so that an address that was freed before,
    /// and is not among the remembered ones, is not taken at once.
    pub fn restore(
        pools: &[Pool],
        used: impl IntoIterator<Item = IpAddr>,
        freed_in_order: impl IntoIterator<Item = IpAddr>,
        last: &[IpAddr],
    ) -> Self {
        Self::new(pools).refill(used, freed_in_order, last)
    }

    pub(super) fn refill(
        mut self,
        used: impl IntoIterator<Item = IpAddr>,
        freed_in_order: impl IntoIterator<Item = IpAddr>,
        last: &[IpAddr],
    ) -> Self {
        for ip in used {
            if !self.pools.iter().any(|p| p.is_used(ip))
                && !self.pools.iter_mut().any(|p| p.take(ip))
            {
                self.foreign.insert(ip);
            }
        }
        for ip in freed_in_order {
            self.turn += 1;
            let turn = self.turn;
            self.pools.iter_mut().any(|p| p.mark_freed(ip, turn));
        }
        for ip in last {
            if let Some(pool_index) = self.pool_of(*ip) {
                self.cursors[slot(Family::of(*ip))] = Some(Allocation { ip: *ip, pool_index });
            }
        }
        self
    }

    /// The same network with other pools. A pool that stays keeps what it knows of its
    /// addresses; the addresses in use of a pool that goes stay in use.
    pub fn repool(&self, pools: &[Pool]) -> Self {
        let kept = |pool: &Pool| self.pools.iter().find(|p| p.serves(pool)).cloned();
        let made = pools.iter().map(|pool| kept(pool).unwrap_or_else(|| PoolAllocator::new(pool)));
        let mut next = Self {
            pools: made.collect(),
            foreign: HashSet::new(),
            cursors: [None, None],
            turn: self.turn,
        };
        let used = self.pools.iter().flat_map(PoolAllocator::used);
        let used = used.chain(self.foreign.iter().copied());
        let last: Vec<IpAddr> = self.cursors.iter().flatten().map(|at| at.ip).collect();
        next = next.refill(used, [], &last);
        next
    }

    /// Whether no address of the subnet is in use.
    pub fn is_empty(&self, subnet: IpNet) -> bool {
        let here = self.pools.iter().filter(|p| p.subnet() == subnet);
        let none_used = here.map(PoolAllocator::usage).all(|usage| usage.used == 0);
        none_used && !self.foreign.iter().any(|ip| subnet.contains(ip))
    }

    /// Gives out one address of each family that the network has, IPv4 first;
    /// all or nothing. `requested` are static addresses, at most one a family;
    /// families that are not requested are filled from the pools.
    ///
    /// # Errors
    /// Every [`IpamError`]; nothing is allocated then.
    pub fn allocate(&mut self, requested: &[IpAddr]) -> Result<Vec<Allocation>, IpamError> {
        self.allocate_of(requested, &FAMILIES)
    }

    /// Gives out the requested addresses and no others; all or nothing. Without any it is
    /// [`Self::allocate`].
    ///
    /// # Errors
    /// Every [`IpamError`]; nothing is allocated then.
    pub fn allocate_only(&mut self, requested: &[IpAddr]) -> Result<Vec<Allocation>, IpamError> {
        if requested.is_empty() {
            return self.allocate(requested);
        }
        self.allocate_of(requested, &[])
    }

    /// Families in `filled` are filled from the pools where they are not requested.
    fn allocate_of(
        &mut self,
        requested: &[IpAddr],
        filled: &[Family],
    ) -> Result<Vec<Allocation>, IpamError> {
        let wanted = self.sorted_requests(requested)?;
        // The families are independent of each other: both addresses are chosen before
        // either is taken, so there is never anything to undo.
        let mut chosen = Vec::with_capacity(FAMILIES.len());
        for family in FAMILIES {
            match wanted[slot(family)] {
                Some(ip) => chosen.push((self.requested(ip)?, false)),
                None if filled.contains(&family) && self.has(family) => {
                    chosen.push((self.next_free(family)?, true))
                }
                None => {}
            }
        }
        for (one, automatic) in &chosen {
            self.pools[one.pool_index].take(one.ip);
            if *automatic {
                self.cursors[slot(Family::of(one.ip))] = Some(*one);
            }
        }
        Ok(chosen.into_iter().map(|(one, _)| one).collect())
    }

    /// Gives out one address of `part`, which is (a part of) one of the network's
    /// subnets: `wanted`, or any that is free.
    ///
    /// # Errors
    /// Every [`IpamError`]; nothing is allocated then.
    pub fn allocate_within(
        &mut self,
        part: IpNet,
        wanted: Option<IpAddr>,
    ) -> Result<Allocation, IpamError> {
        let ip = match wanted {
            Some(ip) if !part.contains(&ip) => {
                return Err(IpamError::NotInPool { ip, pools: vec![part] });
            }
            Some(ip) => ip,
            None => {
                let pool = self.pools.iter().find(|p| p.subnet().contains(&part));
                pool.and_then(|p| p.free_within(&part)).ok_or_else(|| {
                    let family = Family::of(part.addr());
                    let pools = pool.map(PoolAllocator::usage).into_iter().collect();
                    IpamError::PoolFull { family, pools }
                })?
            }
        };
        let given = self.requested(ip)?;
        self.pools[given.pool_index].take(ip);
        Ok(given)
    }

    /// Gives `ip` back; it becomes the last to be used again. Releasing an address that is
    /// not in use does nothing. Returns whether it was in use.
    pub fn release(&mut self, ip: IpAddr) -> bool {
        self.turn += 1;
        let turn = self.turn;
        self.foreign.remove(&ip) || self.pools.iter_mut().any(|p| p.release(ip, turn))
    }

    /// Usage of each pool, in the order of the network's pools.
    pub fn usage(&self) -> Vec<PoolUsage> {
        self.pools.iter().map(PoolAllocator::usage).collect()
    }

    /// Whether `ip` lies in one of the network's subnets, given out or not.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.pool_of(ip).is_some()
    }

    #[cfg(test)]
    pub(super) fn is_used(&self, ip: IpAddr) -> bool {
        self.foreign.contains(&ip) || self.pools.iter().any(|p| p.is_used(ip))
    }

    fn has(&self, family: Family) -> bool {
        self.pools.iter().any(|p| p.family() == family)
    }

    fn pool_of(&self, ip: IpAddr) -> Option<usize> {
        self.pools.iter().position(|p| p.subnet().contains(&ip))
    }

    fn subnets(&self, family: Option<Family>) -> Vec<IpNet> {
        let of = |p: &&PoolAllocator| family.is_none_or(|f| f == p.family());
        self.pools.iter().filter(of).map(PoolAllocator::subnet).collect()
    }

    fn sorted_requests(&self, requested: &[IpAddr]) -> Result<[Option<IpAddr>; 2], IpamError> {
        let mut wanted = [None; 2];
        for ip in requested {
            let family = Family::of(*ip);
            if !self.has(family) {
                return Err(IpamError::NoSuchFamily { ip: *ip, pools: self.subnets(None) });
            }
            if let Some(first) = wanted[slot(family)].replace(*ip) {
                return Err(IpamError::DuplicateFamily { first, second: *ip });
            }
        }
        Ok(wanted)
    }

    fn requested(&self, ip: IpAddr) -> Result<Allocation, IpamError> {
        if self.foreign.contains(&ip) {
            return Err(IpamError::Taken { ip });
        }
        let Some(pool_index) = self.pool_of(ip) else {
            let pools = self.subnets(Some(Family::of(ip)));
            return Err(IpamError::NotInPool { ip, pools });
        };
        self.pools[pool_index].check(ip)?;
        Ok(Allocation { ip, pool_index })
    }

    fn next_free(&self, family: Family) -> Result<Allocation, IpamError> {
        self.next_fresh(family).or_else(|| self.oldest_freed(family)).ok_or_else(|| {
            let full = self.pools.iter().filter(|p| p.family() == family);
            IpamError::PoolFull { family, pools: full.map(PoolAllocator::usage).collect() }
        })
    }

    /// Why no address can be given out to a caller that requests none; `None`: one can.
    pub fn full(&self) -> Option<IpamError> {
        let families = FAMILIES.into_iter().filter(|family| self.has(*family));
        families.map(|family| self.next_free(family)).find_map(Result::err)
    }

    /// From the cursor to the end of its pool, through the pools after it, then
    /// from the first pool up to the cursor.
    fn next_fresh(&self, family: Family) -> Option<Allocation> {
        let from_start = |index: usize| {
            let pool = self.pools.get(index).filter(|p| p.family() == family)?;
            let ip = pool.fresh_from(pool.subnet().network())?;
            Some(Allocation { ip, pool_index: index })
        };
        let Some(at) = self.cursors[slot(family)] else {
            return (0..self.pools.len()).find_map(from_start);
        };
        let here = self.pools.get(at.pool_index).and_then(|p| p.fresh_from(at.ip));
        let here = here.map(|ip| Allocation { ip, pool_index: at.pool_index });
        let after = at.pool_index + 1..self.pools.len();
        here.or_else(|| after.chain(0..=at.pool_index).find_map(from_start))
    }

    fn oldest_freed(&self, family: Family) -> Option<Allocation> {
        let own = self.pools.iter().enumerate().filter(|(_, p)| p.family() == family);
        own.filter_map(|(pool_index, p)| p.oldest_freed().map(|(turn, ip)| (turn, pool_index, ip)))
            .min()
            .map(|(_, pool_index, ip)| Allocation { ip, pool_index })
    }

    #[cfg(test)]
    pub(super) fn pools(&self) -> &[PoolAllocator] {
        &self.pools
    }
}

/// The index of the family in arrays of two.
fn slot(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}
