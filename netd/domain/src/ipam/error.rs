//! Why no address could be given, and what to do about it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 32 bits.
    V4,
    /// 128 bits.
    V6,
}

impl Family {
    /// The family that the address belongs to.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "IPv4" } else { "IPv6" })
    }
}

/// How full a pool is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// The pool's subnet.
    pub subnet: IpNet,
    /// Addresses that can be given out, used or not; saturates at `u64::MAX`.
    pub size: u64,
    /// Those in use.
    pub used: u64,
}

impl fmt::Display for PoolUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} of {} in use)", self.subnet, self.used, self.size)
    }
}

/// Why no address could be given. Nothing was allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// Every address of the family is in use.
    #[error(
        "no free {family} address: {}; delete endpoints that are not needed, or give the network another {family} pool",
        listed(pools)
    )]
    PoolFull {
        /// The family that is used up.
        family: Family,
        /// The network's pools of that family; `used == size` in each.
        pools: Vec<PoolUsage>,
    },
    /// The requested address is in use.
    #[error("{ip} is in use; request another address, or none to be given a free one")]
    Taken {
        /// As requested.
        ip: IpAddr,
    },
    /// The requested address is in none of the network's pools.
    #[error("{ip} is in none of the network's pools; request an address of {}", listed(pools))]
    NotInPool {
        /// As requested.
        ip: IpAddr,
        /// The network's pools of that family.
        pools: Vec<IpNet>,
    },
    /// The requested address is the gateway's.
    #[error("{ip} is the gateway of {subnet}; request another address, or none")]
    IsGateway {
        /// As requested.
        ip: IpAddr,
        /// The pool.
        subnet: IpNet,
    },
    /// The requested address is kept out of the pool.
    #[error("{ip} can't be given out: it is {why}; request another address, or none")]
    Reserved {
        /// As requested.
        ip: IpAddr,
        /// What keeps it out.
        why: String,
    },
    /// Two addresses of one family were requested.
    #[error("{first} and {second} are both {family}; request at most one address a family", family = Family::of(*first))]
    DuplicateFamily {
        /// The one requested first.
        first: IpAddr,
        /// The other.
        second: IpAddr,
    },
    /// The network has no pool of the requested address's family.
    #[error("{ip} is {family}, and the network has no {family} pool; request an address of {}, or none", listed(pools), family = Family::of(*ip))]
    NoSuchFamily {
        /// As requested.
        ip: IpAddr,
        /// The network's pools.
        pools: Vec<IpNet>,
    },
}

/// At most this many pools are named in a message.
const MAX_NAMED: usize = 8;

fn listed<T: fmt::Display>(items: &[T]) -> String {
    let mut text =
        items.iter().take(MAX_NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", items.len() - MAX_NAMED));
    }
    text
}
