//! The overlay's model: what the cluster's configuration says, what leases say, and what
//! follows from a lease for this node's kernel. Compatible with flannel's keys, JSON and
//! kernel objects.
//!
//! Who owns what:
//! - etcd: the cluster's configuration (somebody else writes it) and all leases. A node
//!   writes its own lease keys and netd's own keys about it, all bound to one etcd lease;
//!   compare-and-swap decides who has a subnet.
//! - `membership/`: this node's leases and what is known of the others'. It remembers
//!   both on disk, so that a node without etcd goes on as it was.
//! - `backend/`: nothing. Each is a pure function of this node's facts and a lease.
//! - `node/overlay/`: what is programmed, by comparing that with the kernel.

pub mod backend;
pub mod desired;
pub mod flannel;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
pub mod membership;
pub mod published;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;

use netd_domain::{IfName, Mac, overlay::SecretKey};

/// Internet protocol versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// An address's.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V6,
            Self::V6 => Self::V4,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// A lease's subnets: one of each family that the cluster has, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnets {
    /// IPv4.
    pub v4: Option<Ipv4Net>,
    /// IPv6.
    pub v6: Option<Ipv6Net>,
}

impl Subnets {
    /// Both, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.v4.map(IpNet::V4).into_iter().chain(self.v6.map(IpNet::V6))
    }

    /// The one of a family.
    pub fn of(&self, family: Family) -> Option<IpNet> {
        match family {
            Family::V4 => self.v4.map(IpNet::V4),
            Family::V6 => self.v6.map(IpNet::V6),
        }
    }
}

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

/// A lease's value: how to reach the node that has the subnets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LeaseAttrs {
    /// `PublicIP`
    pub public_v4: Option<Ipv4Addr>,
    /// `PublicIPv6`
    pub public_v6: Option<Ipv6Addr>,
    /// `BackendType`; `None`: left out (udp, alloc).
    pub backend_type: Option<String>,
    /// `BackendData`
    pub data_v4: Option<BackendData>,
    /// `BackendV6Data`
    pub data_v6: Option<BackendData>,
}

/// What only a lease's backend understands: JSON, kept as its text, which takes a tenth of
/// the memory that a tree of it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendData(Box<str>);

impl BackendData {
    /// As a tree.
    pub fn value(&self) -> Value {
        // It was made of one.
        serde_json::from_str(&self.0).unwrap_or_default()
    }
}

impl From<Value> for BackendData {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

impl LeaseAttrs {
    /// The public address of a family.
    pub fn public(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.public_v4.map(IpAddr::V4),
            Family::V6 => self.public_v6.map(IpAddr::V6),
        }
    }
}

/// A lease: which subnets, and how to reach them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// What is leased.
    pub subnets: Subnets,
    /// To whom.
    pub attrs: LeaseAttrs,
    /// Whether the key is bound to no etcd lease: somebody reserved it.
    pub reservation: bool,
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
    /// What extension's `PreStartupCommand` put out; see [`backend::pre_startup`].
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
    pub fn first_subnet(&self, family: Family) -> Option<IpNet> {
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

/// Keys and addresses that peers know this node by.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// MAC of `flannel.<VNI>`.
    pub vtep_v4: Mac,
    /// MAC of `flannel-v6.<VNI>`.
    pub vtep_v6: Mac,
    /// WireGuard's.
    pub wireguard: SecretKey,
}
