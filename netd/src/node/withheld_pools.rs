//! Which pools the kernel has, and which it must not get.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use netd_domain::NetworkName;

/// Of all networks.
#[derive(Debug, Default)]
pub(super) struct HostPools {
    /// Pools that netd has made: what comes to the host later is only reported.
    pub(super) in_force: HashSet<(NetworkName, IpNet)>,
    pub(super) withheld: HashMap<NetworkName, Withheld>,
}

/// Pools of a network that the host itself is in, and why that is so.
#[derive(Debug)]
pub(super) struct Withheld {
    pub(super) subnets: Vec<IpNet>,
    pub(super) why: String,
}
