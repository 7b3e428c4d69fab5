//! Addresses of a subnet whose network another program makes: netd assigns them and makes
//! nothing else of it.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

use super::{
    error::{Family, IpamError, PoolUsage},
    number::{address, bounds, number},
};

/// The addresses of one such subnet. It has no records of endpoints: an address is in use
/// from its reservation to its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalPool {
    subnet: IpNet,
    used: BTreeSet<IpAddr>,
    /// The address that was given out last without being requested.
    last: Option<IpAddr>,
}

impl ExternalPool {
    /// A pool of which no address is in use.
    pub fn new(subnet: IpNet) -> Self {
        Self { subnet, used: BTreeSet::new(), last: None }
    }

    /// The whole subnet.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// How many addresses are in use.
    pub fn used(&self) -> usize {
        self.used.len()
    }

    /// Whether this address is in use.
    pub fn is_used(&self, ip: IpAddr) -> bool {
        self.used.contains(&ip)
    }

    /// Reserves `wanted`, or any address of `part` that is not in use. The subnet's first host
    /// address is its gateway in most networks, and is given out only if it is wanted.
    ///
    /// # Errors
    /// [`IpamError::NotInPool`], [`IpamError::Reserved`], [`IpamError::Taken`] or
    /// [`IpamError::PoolFull`]; nothing is reserved then.
    pub fn reserve(&mut self, part: IpNet, wanted: Option<IpAddr>) -> Result<IpAddr, IpamError> {
        let ip = match wanted {
            Some(ip) => self.wanted(ip)?,
            None => self.free_within(part)?,
        };
        self.used.insert(ip);
        if wanted.is_none() {
            self.last = Some(ip);
        }
        Ok(ip)
    }

    /// Frees an address; returns whether it was in use.
    pub fn release(&mut self, ip: IpAddr) -> bool {
        self.used.remove(&ip)
    }

    /// Marks an address as in use that was reserved before a restart.
    pub fn restore(&mut self, ip: IpAddr) {
        self.used.insert(ip);
    }

    fn wanted(&self, ip: IpAddr) -> Result<IpAddr, IpamError> {
        if !self.subnet.contains(&ip) {
            return Err(IpamError::NotInPool { ip, pools: vec![self.subnet] });
        }
        let (first, last) = self.hosts();
        if number(ip) < first || number(ip) > last {
            let why = format!("the network or broadcast address of {}", self.subnet);
            return Err(IpamError::Reserved { ip, why });
        }
        if self.used.contains(&ip) {
            return Err(IpamError::Taken { ip });
        }
        Ok(ip)
    }

    /// Goes on after the address that was given out last, so that one that was just released is
    /// not used again at once.
    fn free_within(&self, part: IpNet) -> Result<IpAddr, IpamError> {
        let (first, last) = self.hosts();
        let gateways = u128::from(last - first > 1);
        let (start, end) = bounds(&part);
        let (start, end) = ((first + gateways).max(start), last.min(end));
        let family = Family::of(self.subnet.addr());
        let next = self.last.map(|ip| number(ip) + 1).filter(|n| (start..=end).contains(n));
        let next = next.unwrap_or(start);
        // As many are skipped as are in use, at most.
        let mut all = (next..=end).chain(start..next).map(|n| address(family, n));
        all.find(|ip| !self.used.contains(ip)).ok_or_else(|| {
            let size = u64::try_from((end + 1).saturating_sub(start)).unwrap_or(u64::MAX);
            let usage = PoolUsage { subnet: part, size, used: size };
            IpamError::PoolFull { family, pools: vec![usage] }
        })
    }

    /// First and last address that a host may have. The two of a point-to-point link are both
    /// hosts' (RFC 3021, RFC 6164).
    fn hosts(&self) -> (u128, u128) {
        let (first, last) = bounds(&self.subnet);
        match (last - first, self.subnet) {
            (0 | 1, _) => (first, last),
            (_, IpNet::V4(_)) => (first + 1, last - 1),
            (_, IpNet::V6(_)) => (first + 1, last),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_given_once_until_it_is_released() {
        let subnet = net("10.67.0.0/29");
        let mut pool = ExternalPool::new(subnet);
        assert_eq!(pool.reserve(subnet, Some(ip("10.67.0.1"))), Ok(ip("10.67.0.1")));
        assert_eq!(pool.reserve(subnet, Some(ip("10.67.0.3"))), Ok(ip("10.67.0.3")));
        let taken = IpamError::Taken { ip: ip("10.67.0.3") };
        assert_eq!(pool.reserve(subnet, Some(ip("10.67.0.3"))), Err(taken));
        let all: Vec<String> =
            (0..4).map(|_| pool.reserve(subnet, None).unwrap().to_string()).collect();
        assert_eq!(all, ["10.67.0.2", "10.67.0.4", "10.67.0.5", "10.67.0.6"]);
        assert!(matches!(pool.reserve(subnet, None), Err(IpamError::PoolFull { .. })));
        assert!(pool.release(ip("10.67.0.3")) && !pool.release(ip("10.67.0.3")));
        assert_eq!(pool.reserve(subnet, None), Ok(ip("10.67.0.3")));
    }

    #[test]
    fn the_first_host_address_and_the_ends_are_not_chosen() {
        for (subnet, first) in [
            ("10.67.0.0/29", "10.67.0.2"),
            ("fd00:67::/64", "fd00:67::2"),
            ("10.67.0.0/31", "10.67.0.0"),
            ("10.67.0.4/32", "10.67.0.4"),
        ] {
            let mut pool = ExternalPool::new(net(subnet));
            assert_eq!(pool.reserve(net(subnet), None), Ok(ip(first)), "{subnet}");
        }
        let mut pool = ExternalPool::new(net("10.67.0.0/29"));
        for end in ["10.67.0.0", "10.67.0.7"] {
            let refused = pool.reserve(net("10.67.0.0/29"), Some(ip(end)));
            assert!(matches!(refused, Err(IpamError::Reserved { .. })), "{end}");
        }
    }

    #[test]
    fn a_part_of_the_subnet_bounds_the_choice() {
        let (subnet, part) = (net("10.67.0.0/24"), net("10.67.0.128/30"));
        let mut pool = ExternalPool::new(subnet);
        for n in 128..132 {
            assert_eq!(pool.reserve(part, None), Ok(ip(&format!("10.67.0.{n}"))));
        }
        assert!(matches!(pool.reserve(part, None), Err(IpamError::PoolFull { .. })));
        assert_eq!(pool.reserve(subnet, Some(ip("10.67.0.9"))), Ok(ip("10.67.0.9")));
        let outside = pool.reserve(subnet, Some(ip("10.68.0.9")));
        assert!(matches!(outside, Err(IpamError::NotInPool { .. })));
    }

    #[test]
    fn what_was_released_is_not_used_again_at_once() {
        let subnet = net("fd00:67::/64");
        let mut pool = ExternalPool::new(subnet);
        let first = pool.reserve(subnet, None).unwrap();
        pool.release(first);
        assert_eq!(pool.reserve(subnet, None), Ok(ip("fd00:67::3")));
    }
}
