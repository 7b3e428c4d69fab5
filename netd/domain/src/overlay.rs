//! The desired state of the kernel for the overlay: devices, and the routes, neighbours and
//! forwarding entries to the other nodes' subnets. The dataplane makes it so.

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
    /// Its addresses; the dataplane removes all others.
    pub addresses: Vec<IpNet>,
    /// What it is.
    pub kind: DeviceKind,
}

/// Kinds of overlay devices. A device with a setting that can't be changed in place is made
/// again under the same name and MAC, and so are the routes and entries on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceKind {
    /// VXLAN (RFC 7348); netd makes its forwarding entries.
    Vxlan(VxlanDevice),
    /// IPv4 in IPv4 (RFC 2003), to any remote (`remote 0.0.0.0`).
    Ipip {
        /// Source of the outer packets.
        local: std::net::Ipv4Addr,
        /// Device of the outer packets.
        underlay: IfName,
    },
    /// The kernel's WireGuard.
    Wireguard {
        /// X25519.
        private_key: SecretKey,
        /// UDP.
        port: u16,
    },
    /// A tun device that the tunnel process makes and holds. The dataplane sets its MTU, its
    /// addresses and its state, and reports when it is missing.
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
    /// Device of the outer packets.
    pub underlay: IfName,
    /// Group based policy extension.
    pub gbp: bool,
    /// Learn addresses from packets.
    pub learning: bool,
}

/// 32 bytes; `Debug` does not show them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// An object in the kernel for packets to another node's subnet, or one that drops packets to
/// unused addresses. Each carries netd's route protocol, which tells leftovers from the
/// objects of others.
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
    /// Device and next hop.
    pub hop: Hop,
    /// Bytes; `None`: the device's.
    pub mtu: Option<u32>,
}

/// Device and next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hop {
    /// Through this device without a next hop.
    Device(IfName),
    /// To this next hop on this device.
    Via {
        /// The next hop; of the destination's family.
        gateway: IpAddr,
        /// The device to reach it by.
        device: IfName,
        /// The next hop is on the link, whatever the device's addresses say.
        onlink: bool,
    },
    /// Drop without an answer: for unused addresses of an own subnet.
    Blackhole,
}

/// Smallest metric of overlay routes; the others are in the 2^16 after it. Each destination
/// has a metric of its own: the kernel keeps routes that differ only in their gateway in one
/// hash chain, and loading 10,000 of them takes 15 times as long.
pub const METRIC_BASE: u32 = 0x0004_0000;

impl OverlayRoute {
    /// The route's metric; it depends on nothing but the destination.
    pub fn metric(&self) -> u32 {
        let text = self.destination.to_string();
        METRIC_BASE + (super::ids::fnv1a(text.as_bytes()) & 0xffff) as u32
    }
}

/// A WireGuard peer, in the kernel's device or the tunnel process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardPeer {
    /// X25519; identifies the peer.
    pub public_key: [u8; 32],
    /// The peer's UDP address.
    pub endpoint: SocketAddr,
    /// Destinations of packets to the peer, and the only sources of packets from it.
    pub allowed: BTreeSet<IpNet>,
    /// Shared by the two peers, beside their own keys.
    pub preshared_key: Option<SecretKey>,
    /// Seconds; 0: none.
    pub keepalive: u16,
}

/// A peer of the udp backend's tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpPeer {
    /// The peer's UDP address; identifies the peer.
    pub endpoint: SocketAddr,
    /// Destinations of packets to the peer, and the only sources of packets from it.
    pub subnets: BTreeSet<IpNet>,
}

/// A peer of a tunnel in the kernel or in the tunnel process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelPeer {
    /// On this device.
    Wireguard(IfName, WireguardPeer),
    /// On this device.
    Udp(IfName, UdpPeer),
}

/// Identifies a peer among those of all tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TunnelPeerName {
    /// Device, public key.
    Wireguard(IfName, [u8; 32]),
    /// Device, endpoint.
    Udp(IfName, SocketAddr),
}

impl TunnelPeer {
    /// The identity of the peer.
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

    /// Destinations of packets to the peer.
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
    /// Its protocol.
    pub kind: TunnelKind,
}

/// Protocol of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// flannel's udp backend: each datagram holds one IP packet.
    Udp {
        /// Local addresses of the sockets.
        listen: Vec<SocketAddr>,
    },
    /// WireGuard.
    Wireguard {
        /// X25519.
        private_key: SecretKey,
        /// As for udp. If both families have the same port, the IPv6 socket takes IPv6 only.
        listen: Vec<SocketAddr>,
        /// Of every peer.
        preshared_key: Option<SecretKey>,
        /// Seconds, of every peer; 0: none.
        keepalive: u16,
    },
}

/// Everything that the kernel has to hold for the overlay. The dataplane removes all other
/// objects that netd made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayState {
    /// In the order in which they are made.
    pub devices: Vec<OverlayDevice>,
    /// Neighbours, forwarding entries, routes.
    pub objects: std::collections::HashSet<OverlayObject>,
    /// Of the kernel's WireGuard devices.
    pub wireguard: Vec<(IfName, WireguardPeer)>,
    /// This node's own subnets: no route of another program may lead into them.
    pub own: Vec<IpNet>,
    /// The state is not known completely yet: nothing is removed.
    pub partial: bool,
}

impl OverlayState {
    /// The peers of one of the kernel's WireGuard devices.
    pub fn wireguard_of<'a>(
        &'a self,
        device: &'a IfName,
    ) -> impl Iterator<Item = &'a WireguardPeer> + 'a {
        self.wireguard.iter().filter(move |(name, _)| name == device).map(|(_, peer)| peer)
    }
}

/// A change of an [`OverlayState`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayChange {
    /// Made before anything is removed. An object replaces another neighbour with the same
    /// address, or another route to the same destination.
    pub add: Vec<OverlayObject>,
    /// May be missing in the kernel. Must not hold an object that one of `add` replaces.
    pub remove: Vec<OverlayObject>,
    /// Replace all settings of a peer, by device.
    pub set_wireguard: Vec<(IfName, WireguardPeer)>,
    /// Device and public key.
    pub remove_wireguard: Vec<(IfName, [u8; 32])>,
}
