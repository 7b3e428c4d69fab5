//! The tunnels, peers and status that netd and netd-tunnel exchange.

use std::net::SocketAddr;

use ipnet::IpNet;
use netd_api::tunnel::v1 as pb;

use netd_domain::{
    IfName,
    overlay::{SecretKey, TunnelPeer},
};

/// A tunnel, without its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// The tun device.
    pub device: IfName,
    /// Where datagrams are received and sent from; the port is part of it. A peer is
    /// reached from the first one of its family. 1 to 16.
    pub listen: Vec<SocketAddr>,
    /// This node's own subnets: peers may send to these only. Empty: peers may send to every
    /// address that is not a peer's.
    pub subnets: Vec<IpNet>,
    /// Which backend.
    pub kind: TunnelKind,
}

/// Userspace backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelKind {
    /// flannel's udp.
    Udp,
    /// WireGuard, with this private key.
    Wireguard(SecretKey),
}

/// The name of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TunnelPeerName {
    /// Udp.
    Endpoint(SocketAddr),
    /// Wireguard: the public key.
    Key([u8; 32]),
}

/// A change of a tunnel's peers; it is applied as a whole or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerChange {
    /// Remove every peer that is not in `set` first.
    pub replace_all: bool,
    /// Peers to add or change; sessions of those that do not change go on.
    pub set: Vec<TunnelPeer>,
    /// Peers to remove; unknown ones are ignored.
    pub remove: Vec<TunnelPeerName>,
}

/// netd-tunnel's status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Its version.
    pub version: String,
    /// Seconds since the Unix epoch.
    pub started_at: i64,
    /// By device.
    pub tunnels: Vec<pb::TunnelStatus>,
}
