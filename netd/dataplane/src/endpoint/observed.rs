//! The kernel's state around an endpoint, as far as a plan needs it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::op::Shape;
use netd_domain::{Mac, Route};

/// A link in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActualLink {
    pub index: u32,
    pub name: String,
    /// `veth`, `bridge`, ...; empty: hardware.
    pub kind: String,
    /// Administratively up.
    pub up: bool,
    /// Bytes.
    pub mtu: u32,
    /// Ethernet address.
    pub mac: Option<Mac>,
    /// The bridge's index.
    pub master: Option<u32>,
    /// It is a bridge port with hairpin mode.
    pub hairpin: bool,
    /// The kernel makes no IPv6 address of its own, or IPv6 is off.
    pub no_autoconf: bool,
    /// The host forwards IPv4 packets that come in by it.
    pub forwarding: bool,
    /// The kernel has IPv6 for it.
    pub ipv6: bool,
    /// Index of the other end in its own namespace.
    pub peer: Option<u32>,
    /// Namespace id of the other end, as the namespace of this end has it; `None`: both ends
    /// are in the same namespace.
    pub peer_netns: Option<i32>,
    /// Link group.
    pub group: u32,
    /// A bridge that runs the spanning tree protocol.
    pub stp: bool,
}

/// The kernel's state of an endpoint; the default is that it has nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActualEndpoint {
    /// The link with the host side's name; the renamed one, if there is none.
    pub host: Option<ActualLink>,
    /// Destinations of the host's routes through it.
    pub host_routes: Vec<IpNet>,
    /// Permanent neighbours on it.
    pub host_neighbours: Vec<(IpAddr, Mac)>,
    /// The other end of the host's side if that is in the sandbox, under whatever name; else
    /// the link with the sandbox side's name.
    pub pod: Option<ActualLink>,
    /// The two links are the ends of one pair.
    pub paired: bool,
    /// The sandbox has another link with the sandbox side's name.
    pub name_taken: bool,
    /// `lo` in the sandbox is up.
    pub loopback_up: bool,
    /// Addresses of the sandbox side.
    pub pod_addresses: Vec<IpNet>,
    /// Routes through the sandbox side.
    pub pod_routes: Vec<Route>,
    /// Permanent neighbours on the sandbox side.
    pub pod_neighbours: Vec<(IpAddr, Mac)>,
    /// Packets between 127.0.0.1 and the pod may pass the host side.
    pub local_routes: bool,
    /// Bandwidth limits.
    pub limits: ActualLimits,
}

/// Bandwidth limits in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ActualLimits {
    /// Limit on the host side.
    pub to_pod: Option<Shape>,
    /// Index of the intermediate device, and whether it is up.
    pub ifb: Option<(u32, bool)>,
    /// Limit on the intermediate device.
    pub from_pod: Option<Shape>,
    /// The host side has an ingress qdisc.
    pub hook: bool,
    /// Index of the device to which the ingress qdisc redirects packets.
    pub redirect: Option<u32>,
}
