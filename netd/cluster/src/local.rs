//! This node's own facts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::{
    config::ClusterConfig,
    identity::Identity,
    subnets::{Family, Subnets},
};
use netd_domain::IfName;

/// Whether an address can be one that other nodes send to.
pub fn is_reachable(ip: IpAddr) -> bool {
    !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

/// This node, as backends see it.
#[derive(Debug, Clone, PartialEq)]
pub struct Local {
    /// The cluster's configuration in force.
    pub cluster: ClusterConfig,
    /// What leads to the other nodes.
    pub underlay: Underlay,
    /// The address that peers send to.
    pub public_v4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub public_v6: Option<Ipv6Addr>,
    /// Every subnet pair this node has.
    pub subnets: Vec<Subnets>,
    /// What this node is known by; kept over restarts and reboots.
    pub identity: Identity,
    /// Whether the kernel has WireGuard; else the tunnel process does it.
    pub kernel_wireguard: bool,
    /// Whether unused addresses of own subnets lead nowhere (flannel's
    /// `--ip-blackhole-route`), rather than to the default gateway.
    pub blackhole: bool,
    /// What extension's `PreStartupCommand` put out; see [`crate::backend::pre_startup`].
    pub extension_data: Option<String>,
}

impl Local {
    /// The address of a family that peers send to.
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_v4.map(IpAddr::V4),
            Family::V6 => self.public_v6.map(IpAddr::V6),
        }
    }

    /// The first subnet of a family: the overlay's devices have their address from it.
    pub(crate) fn first_subnet(&self, family: Family) -> Option<IpNet> {
        self.subnets.iter().find_map(|s| s.of(family))
    }

    /// The source of packets to peers: the public address, unless that is a router's
    /// in front of this node.
    pub fn source(&self, family: Family) -> Option<IpAddr> {
        let public = self.public(family)?;
        let own = || self.underlay.addresses.iter().map(IpNet::addr);
        let global = |ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if own().any(|ip| ip == public) {
            return Some(public);
        }
        own().filter(global).find(|ip| Family::of(*ip) == family).or(Some(public))
    }

    /// Whether packets to `ip` come back to this node.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        let public = self.public(Family::of(ip)) == Some(ip);
        public || self.underlay.addresses.iter().any(|net| net.addr() == ip)
    }
}

/// The device that leads to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub device: IfName,
    /// Bytes.
    pub mtu: u32,
    /// With the prefix lengths: what lies inside is on the same link.
    pub addresses: Vec<IpNet>,
}

impl Underlay {
    /// Whether `ip` is on the same link.
    pub fn reaches(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.contains(&ip) && net.addr() != ip)
    }
}
