//! The cluster's configuration.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::subnets::Family;
use netd_domain::overlay::SecretKey;

/// The cluster's configuration: flannel's `<prefix>/config`, checked, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `Network` with `SubnetLen`, `SubnetMin`, `SubnetMax`; `None`: `EnableIPv4` false.
    pub v4: Option<FamilyRange<Ipv4Net, Ipv4Addr>>,
    /// The same of IPv6; `None`: `EnableIPv6` false.
    pub v6: Option<FamilyRange<Ipv6Net, Ipv6Addr>>,
    /// `Backend`.
    pub backend: BackendConfig,
}

/// One family's share of [`ClusterConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyRange<N, A> {
    /// The whole cluster's.
    pub network: N,
    /// Prefix length of a node's subnet.
    pub subnet_len: u8,
    /// First subnet that is given out.
    pub min: A,
    /// Last subnet that is given out.
    pub max: A,
}

impl ClusterConfig {
    /// The whole cluster's networks.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let v4 = self.v4.map(|r| IpNet::V4(r.network));
        v4.into_iter().chain(self.v6.map(|r| IpNet::V6(r.network)))
    }

    /// A family's network; `None`: pods have no addresses of it.
    pub fn network(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => self.v4.map(|r| IpNet::V4(r.network)),
            Family::V6 => self.v6.map(|r| IpNet::V6(r.network)),
        }
    }

    /// The families that pods have addresses of.
    pub fn families(&self) -> impl Iterator<Item = Family> {
        Family::ALL.into_iter().filter(|f| self.network(*f).is_some())
    }
}

/// `Backend` of the cluster's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendConfig {
    /// `vxlan`
    Vxlan {
        /// `VNI`, 1 unless given.
        vni: u32,
        /// `Port`; 8472 for flannel's 0.
        port: u16,
        /// `GBP`
        gbp: bool,
        /// `Learning`
        learning: bool,
        /// `DirectRouting`: peers on the same link are routed to without encapsulation.
        direct_routing: bool,
        /// `MTU` of the underlay to count from; `None`: the device's.
        mtu: Option<u32>,
    },
    /// `host-gw`
    HostGw,
    /// `udp`
    Udp {
        /// `Port`, 8285 unless given.
        port: u16,
    },
    /// `wireguard`
    Wireguard {
        /// `Mode`
        mode: WireguardMode,
        /// `PSK`
        preshared_key: Option<SecretKey>,
        /// `ListenPort`, 51820 unless given.
        port: u16,
        /// `ListenPortV6`, 51821 unless given; of mode separate.
        port_v6: u16,
        /// `MTU` of the underlay to count from.
        mtu: Option<u32>,
        /// `PersistentKeepaliveInterval`, seconds; 0: none.
        keepalive: u16,
    },
    /// `ipip`
    Ipip {
        /// As of vxlan.
        direct_routing: bool,
    },
    /// `extension`: commands of the operator's; environment as flannel gives them.
    Extension {
        /// `PreStartupCommand`; its output becomes the lease's data.
        pre_startup: String,
        /// `PostStartupCommand`
        post_startup: String,
        /// `SubnetAddCommand`
        subnet_add: String,
        /// `SubnetRemoveCommand`
        subnet_remove: String,
    },
    /// `alloc`: subnets are given out, nothing is routed.
    Alloc,
}

/// Which tunnels the wireguard backend makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireguardMode {
    /// One a family: `flannel-wg` over IPv4, `flannel-wg-v6` over IPv6.
    Separate,
    /// One for both, to each peer over the family that more likely leads there: IPv4 if
    /// its address is a public one, else IPv6 if that is, else IPv4.
    Auto,
    /// One for both over IPv4.
    Ipv4,
    /// One for both over IPv6.
    Ipv6,
}

impl BackendConfig {
    /// `Type`: `vxlan`, `host-gw`, ...
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vxlan { .. } => "vxlan",
            Self::HostGw => "host-gw",
            Self::Udp { .. } => "udp",
            Self::Wireguard { .. } => "wireguard",
            Self::Ipip { .. } => "ipip",
            Self::Extension { .. } => "extension",
            Self::Alloc => "alloc",
        }
    }
}
