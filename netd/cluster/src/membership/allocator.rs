//! Chooses which subnet to claim. Pure.
//!
//! As flannel: a random one of the first free ones of the range, because nodes that
//! start together would all want the very first. Here "free" is about addresses, not
//! keys: a subnet that overlaps with another one, of whatever length, is not free.

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{ClusterConfig, Subnets};

/// Of how many free subnets one is chosen, as flannel does.
pub(super) const WINDOW: usize = 100;

/// Addresses in use, as closed intervals.
#[derive(Debug, Clone, Default)]
pub(super) struct UsedRanges {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl UsedRanges {
    pub(super) fn add(&mut self, net: IpNet) {
        let interval = (number(net.network()), number(net.broadcast()));
        match net {
            IpNet::V4(_) => self.v4.push(interval),
            IpNet::V6(_) => self.v6.push(interval),
        }
    }

    pub(super) fn add_all(&mut self, subnets: &Subnets) {
        subnets.iter().for_each(|net| self.add(net));
    }

    /// Marks a single address: all that a key which can't be read tells.
    pub(super) fn add_address(&mut self, ip: IpAddr) {
        self.add(IpNet::from(ip));
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// Why there is nothing to take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AllocationError {
    /// All are leased, reserved or overlapped.
    #[error(
        "no free {family} subnet: all {total} of length /{len} from {min} to {max} are leased, \
         reserved or overlapped; delete stale keys, or widen SubnetMin and SubnetMax or \
         lengthen {option} in the cluster's configuration"
    )]
    Exhausted {
        family: Family,
        total: u128,
        len: u8,
        min: IpAddr,
        max: IpAddr,
        option: &'static str,
    },
    /// Neither family is enabled.
    #[error(
        "the cluster's configuration enables neither IPv4 nor IPv6; set EnableIPv4 or EnableIPv6"
    )]
    NoFamily,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Chooses subnets of each family that the cluster has, out of the first `window` free
/// ones of it.
///
/// # Errors
/// [`AllocationError`].
pub(super) fn allocate(
    config: &ClusterConfig,
    taken: UsedRanges,
    window: usize,
    rng: &mut fastrand::Rng,
) -> Result<Subnets, AllocationError> {
    let mut picked = Subnets { v4: None, v6: None };
    if let Some(range) = config.v4 {
        let range = Range {
            family: Family::V4,
            bits: 32,
            len: range.subnet_len,
            min: range.min.into(),
            max: range.max.into(),
        };
        let at = range.choose(taken.v4, window, rng)?;
        let ip = u32::try_from(at).unwrap_or(u32::MAX).into();
        picked.v4 = Ipv4Net::new(ip, range.len).ok();
    }
    if let Some(range) = config.v6 {
        let range = Range {
            family: Family::V6,
            bits: 128,
            len: range.subnet_len,
            min: range.min.into(),
            max: range.max.into(),
        };
        let at = range.choose(taken.v6, window, rng)?;
        picked.v6 = Ipv6Net::new(at.into(), range.len).ok();
    }
    if picked.iter().next().is_none() { Err(AllocationError::NoFamily) } else { Ok(picked) }
}

#[derive(Debug)]
struct Range {
    family: Family,
    bits: u8,
    len: u8,
    min: IpAddr,
    max: IpAddr,
}

impl Range {
    /// First address of one of the first `window` free subnets.
    fn choose(
        &self,
        taken: Vec<(u128, u128)>,
        window: usize,
        rng: &mut fastrand::Rng,
    ) -> Result<u128, AllocationError> {
        let free = self.free(taken, window);
        rng.choice(free).ok_or_else(|| AllocationError::Exhausted {
            family: self.family,
            total: self.total(),
            len: self.len,
            min: self.min,
            max: self.max,
            option: if self.family == Family::V4 { "SubnetLen" } else { "IPv6SubnetLen" },
        })
    }

    /// Addresses of a subnet; 0 stands for 2^128.
    fn size(&self) -> u128 {
        1u128.checked_shl(u32::from(self.bits.saturating_sub(self.len))).unwrap_or(0)
    }

    fn total(&self) -> u128 {
        let (min, max) = (number(self.min), number(self.max));
        max.saturating_sub(min).checked_div(self.size()).map_or(0, |n| n.saturating_add(1))
    }

    /// The first `window` free ones, in order. Takes time for what is taken and for
    /// what is found, not for the range: an IPv6 range may have 2^64 subnets.
    fn free(&self, mut taken: Vec<(u128, u128)>, window: usize) -> Vec<u128> {
        let (size, max) = (self.size(), number(self.max));
        if size == 0 {
            return vec![];
        }
        taken.sort_unstable();
        let mut taken = taken.into_iter().peekable();
        // A `SubnetMin` inside of a subnet stands for that subnet.
        let mut next = Some(number(self.min) / size * size);
        let mut free = Vec::with_capacity(window.min(WINDOW));
        while let Some(at) = next.filter(|at| *at <= max && free.len() < window) {
            let last = at + (size - 1);
            match taken.peek() {
                Some((_, to)) if *to < at => drop(taken.next()),
                // On to the first subnet that begins after the taken one.
                Some((from, to)) if *from <= last => {
                    next = (*to / size).checked_add(1).and_then(|n| n.checked_mul(size));
                }
                _ => {
                    free.push(at);
                    next = at.checked_add(size);
                }
            }
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BackendConfig, FamilyRange};

    fn v4(network: &str, subnet_len: u8, min: &str, max: &str) -> ClusterConfig {
        let range = FamilyRange {
            network: network.parse().unwrap(),
            subnet_len,
            min: min.parse().unwrap(),
            max: max.parse().unwrap(),
        };
        ClusterConfig { v4: Some(range), v6: None, backend: BackendConfig::HostGw }
    }

    fn taken(nets: &[&str]) -> UsedRanges {
        let mut taken = UsedRanges::default();
        nets.iter().for_each(|n| taken.add(n.parse().unwrap()));
        taken
    }

    fn all_of(config: &ClusterConfig, mut taken: UsedRanges) -> Vec<String> {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut all = vec![];
        while let Ok(subnets) = allocate(config, taken.clone(), 3, &mut rng) {
            taken.add_all(&subnets);
            all.push(subnets.v4.unwrap().to_string());
        }
        all.sort();
        all
    }

    #[test]
    fn every_free_one_is_found_and_no_other() {
        let config = v4("10.5.0.0/16", 24, "10.5.1.0", "10.5.8.0");
        let taken = taken(&["10.5.2.0/24", "10.5.4.128/25", "10.5.6.0/23", "10.5.8.9/32"]);
        assert_eq!(all_of(&config, taken), ["10.5.1.0/24", "10.5.3.0/24", "10.5.5.0/24"]);
    }

    #[test]
    fn it_stays_among_the_first_free_ones() {
        let config = v4("10.0.0.0/8", 24, "10.0.1.0", "10.255.254.0");
        let mut rng = fastrand::Rng::with_seed(3);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let taken = taken(&["10.0.1.0/24", "10.0.3.0/24"]);
            seen.insert(allocate(&config, taken, WINDOW, &mut rng).unwrap().v4.unwrap());
        }
        assert_eq!(seen.len(), WINDOW);
        assert_eq!(seen.first().unwrap().to_string(), "10.0.2.0/24");
        assert_eq!(seen.last().unwrap().to_string(), "10.0.102.0/24");
    }

    #[test]
    fn exhaustion_says_what_and_what_to_do() {
        let config = v4("10.5.0.0/16", 24, "10.5.1.0", "10.5.2.0");
        let mut rng = fastrand::Rng::with_seed(3);
        let err = allocate(&config, taken(&["10.5.0.0/20"]), WINDOW, &mut rng).unwrap_err();
        let text = err.to_string();
        for part in ["IPv4", "all 2", "/24", "10.5.1.0", "10.5.2.0", "SubnetMax", "SubnetLen"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let none = ClusterConfig { v4: None, ..config };
        assert_eq!(
            allocate(&none, UsedRanges::default(), 1, &mut rng),
            Err(AllocationError::NoFamily)
        );
    }

    #[test]
    fn the_ends_of_the_address_space_are_no_trap() {
        let mut rng = fastrand::Rng::with_seed(3);
        let config = v4("255.255.0.0/16", 30, "255.255.255.248", "255.255.255.252");
        let got = allocate(&config, taken(&["255.255.255.248/30"]), WINDOW, &mut rng).unwrap();
        assert_eq!(got.v4.unwrap().to_string(), "255.255.255.252/30");
        assert!(allocate(&config, taken(&["0.0.0.0/0"]), WINDOW, &mut rng).is_err());
        let range = FamilyRange {
            network: "ffff::/16".parse().unwrap(),
            subnet_len: 64,
            min: "ffff:ffff:ffff:fffe::".parse().unwrap(),
            max: "ffff:ffff:ffff:ffff::".parse().unwrap(),
        };
        let config = ClusterConfig { v4: None, v6: Some(range), backend: BackendConfig::HostGw };
        let got =
            allocate(&config, taken(&["ffff:ffff:ffff:fffe::/64"]), WINDOW, &mut rng).unwrap();
        assert_eq!(got.v6.unwrap().to_string(), "ffff:ffff:ffff:ffff::/64");
        let all = taken(&["ffff:ffff:ffff:ffff::/64", "ffff:ffff:ffff:fffe::/64"]);
        assert!(allocate(&config, all, WINDOW, &mut rng).is_err());
    }

    proptest! {
        /// Against going through the whole range by hand.
        #[test]
        fn free_is_what_overlaps_with_nothing(
            len in 20u8..=28,
            (from, to) in (0u32..40, 0u32..40),
            nets in proptest::collection::vec((0u32..65536, 16u8..=32), 0..40),
            window in 1usize..50,
        ) {
            let step = 1u32 << (32 - len);
            let base = u32::from(std::net::Ipv4Addr::new(10, 5, 0, 0));
            let range = Range {
                family: Family::V4,
                bits: 32,
                len,
                min: IpAddr::V4((base + from * step).into()),
                max: IpAddr::V4((base + to * step).into()),
            };
            let nets: Vec<Ipv4Net> = nets
                .into_iter()
                .map(|(at, len)| Ipv4Net::new((base + at).into(), len).unwrap().trunc())
                .collect();
            let mut taken = UsedRanges::default();
            nets.iter().for_each(|n| taken.add((*n).into()));
            let overlaps = |a: Ipv4Net| nets.iter().any(|b| a.contains(b) || b.contains(&a));
            let expected: Vec<u128> = (from..=to)
                .map(|n| base + n * step)
                .filter(|at| !overlaps(Ipv4Net::new((*at).into(), len).unwrap()))
                .map(u128::from)
                .take(window)
                .collect();
            prop_assert_eq!(range.free(taken.v4, window), expected);
        }
    }
}
