//! What the kernel has to hold for the overlay: devices, and the objects that lead to
//! the other nodes' subnets. The desired state that the dataplane makes true.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ids::{IfName, Mac};

/// A device of the overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayDevice {
    /// Its name, as flannel calls it: `flannel.1`, `flannel-wg`, ...
    pub name: IfName,
    /// Bytes.
    pub mtu: u32,
    /// Every address it has; others are taken off it.
    pub addresses: Vec<IpNet>,
    /// What it is.
    pub kind: DeviceKind,
}

/// Kinds of overlay devices. What can't be changed in place is made anew, with the same
/// name and MAC, and everything that led over it with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKind {
    /// VXLAN (RFC 7348) with entries by hand.
    Vxlan(VxlanDevice),
    /// IPv4 in IPv4 (RFC 2003), to any remote (`remote 0.0.0.0`).
    Ipip {
        /// Source of the outer packets.
        local: std::net::Ipv4Addr,
        /// Where the outer packets go out.
        underlay: IfName,
    },
    /// The kernel's WireGuard.
    Wireguard {
        /// X25519.
        private_key: SecretKey,
        /// UDP.
        port: u16,
    },
    /// A tun device that the tunnel process makes and holds: the dataplane gives it its
    /// MTU, its addresses and its state, and says when it is missing.
    Tun,
}

/// A vxlan device's own settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// 0 to 2^24-1.
    pub vni: u32,
    /// UDP port; the kernel's default (8472) if the configuration says 0.
    pub port: u16,
    /// The VTEP's.
    pub mac: Mac,
    /// Source of the outer packets; decides the outer family.
    pub local: IpAddr,
    /// Where the outer packets go out.
    pub underlay: IfName,
    /// Group based policy extension.
    pub gbp: bool,
    /// Learn addresses from packets.
    pub learning: bool,
}

/// 32 bytes that are never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What leads to another node's subnet, or keeps packets from going astray.
/// Everything carries netd's route protocol, so that leftovers are known as its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OverlayObject {
    /// A permanent neighbour entry.
    Neighbour {
        /// On this device.
        device: IfName,
        /// The next hop.
        ip: IpAddr,
        /// Its MAC.
        mac: Mac,
    },
    /// A permanent forwarding entry of a vxlan device.
    Fdb {
        /// On this device.
        device: IfName,
        /// The remote VTEP.
        mac: Mac,
        /// The remote node.
        remote: IpAddr,
    },
    /// A route in the main table.
    Route(OverlayRoute),
}

/// A route in the main table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OverlayRoute {
    /// A peer's subnet, or the whole cluster's network.
    pub destination: IpNet,
    /// How.
    pub hop: Hop,
    /// Bytes; `None`: the device's.
    pub mtu: Option<u32>,
}

/// How a route leads on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    /// Through this device without a next hop.
    Device(IfName),
    /// To this next hop on this device; `onlink`: whatever the device's addresses say.
    Via {
        /// The next hop; of the destination's family.
        gateway: IpAddr,
        /// Where it is.
        device: IfName,
        /// Don't ask whether the gateway is a neighbour.
        onlink: bool,
    },
    /// To nowhere, silently: unused addresses of an own subnet.
    Blackhole,
}

/// Smallest metric that overlay routes get; the range is 2^16. Each destination has its
/// own, made from it: the kernel keeps routes that differ only in their gateway in one
/// hash chain, and loading 10,000 of them takes 15 times as long.
pub const METRIC_BASE: u32 = 0x0004_0000;

impl OverlayRoute {
    /// The route's metric: the same for a destination on every node and every day.
    pub fn metric(&self) -> u32 {
        let text = self.destination.to_string();
        METRIC_BASE + (super::ids::fnv1a(text.as_bytes()) & 0xffff) as u32
    }
}

/// A WireGuard peer, in the kernel's device or the tunnel process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardPeer {
    /// X25519; names the peer.
    pub public_key: [u8; 32],
    /// Where it is.
    pub endpoint: SocketAddr,
    /// What goes there, and the only sources it may send from.
    pub allowed: BTreeSet<IpNet>,
    /// Of the tunnel.
    pub preshared_key: Option<SecretKey>,
    /// Seconds; 0: none.
    pub keepalive: u16,
}

/// A peer of the udp backend's tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPeer {
    /// Where it is; names the peer.
    pub endpoint: SocketAddr,
    /// What goes there, and the only sources it may send from.
    pub subnets: BTreeSet<IpNet>,
}

/// A peer of a tunnel, kernel's or userspace's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelPeer {
    /// On this device.
    Wireguard(IfName, WireguardPeer),
    /// On this device.
    Udp(IfName, UdpPeer),
}

/// What a tunnel's peers are told apart by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelPeerName {
    /// Device, public key.
    Wireguard(IfName, [u8; 32]),
    /// Device, endpoint.
    Udp(IfName, SocketAddr),
}

impl TunnelPeer {
    /// The peer's name.
    pub fn name(&self) -> TunnelPeerName {
        match self {
            Self::Wireguard(device, peer) => {
                TunnelPeerName::Wireguard(device.clone(), peer.public_key)
            }
            Self::Udp(device, peer) => TunnelPeerName::Udp(device.clone(), peer.endpoint),
        }
    }

    /// The tunnel's device.
    pub fn device(&self) -> &IfName {
        match self {
            Self::Wireguard(device, _) | Self::Udp(device, _) => device,
        }
    }

    /// What goes to the peer.
    pub fn subnets(&self) -> &BTreeSet<IpNet> {
        match self {
            Self::Wireguard(_, peer) => &peer.allowed,
            Self::Udp(_, peer) => &peer.subnets,
        }
    }

    /// The same peer with other subnets.
    pub fn with_subnets(mut self, subnets: BTreeSet<IpNet>) -> Self {
        match &mut self {
            Self::Wireguard(_, peer) => peer.allowed = subnets,
            Self::Udp(_, peer) => peer.subnets = subnets,
        }
        self
    }
}

/// A tunnel of the tunnel process, and the tun device that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelDevice {
    /// The tun device.
    pub name: IfName,
    /// Bytes.
    pub mtu: u32,
    /// What it speaks.
    pub kind: TunnelKind,
}

/// What a tunnel speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// One IP packet a datagram.
    Udp {
        /// Where datagrams are received, and sent from.
        listen: Vec<SocketAddr>,
    },
    /// WireGuard.
    Wireguard {
        /// X25519.
        private_key: SecretKey,
        /// As for udp. Of one port in both families, the IPv6 one takes IPv6 only.
        listen: Vec<SocketAddr>,
        /// Of every peer.
        preshared_key: Option<SecretKey>,
        /// Seconds, of every peer; 0: none.
        keepalive: u16,
    },
}

/// Everything the kernel has to hold for the overlay; what of netd's own it holds beyond
/// that is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayState {
    /// In the order they are made.
    pub devices: Vec<OverlayDevice>,
    /// Neighbours, forwarding entries, routes.
    pub objects: std::collections::HashSet<OverlayObject>,
    /// Of the kernel's WireGuard devices.
    pub wireguard: Vec<(IfName, WireguardPeer)>,
    /// There may be more that is not known yet: nothing is removed.
    pub partial: bool,
}

/// A change of what the kernel has to hold, where the rest is as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayChange {
    /// Made before anything is removed. Takes the place of what is there: of another
    /// neighbour with this address, of another route to this destination.
    pub add: Vec<OverlayObject>,
    /// What is not there is fine. Nothing of which `add` takes the place.
    pub remove: Vec<OverlayObject>,
    /// Set whole, by name.
    pub set_wireguard: Vec<(IfName, WireguardPeer)>,
    /// By public key.
    pub remove_wireguard: Vec<(IfName, [u8; 32])>,
}
