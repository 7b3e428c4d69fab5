//! What the kernel holds, as far as plans care.

use std::net::IpAddr;

use ipnet::IpNet;

use super::op::Shape;
use netd_domain::{Mac, Route};

/// A link as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualLink {
    /// Interface index.
    pub index: u32,
    /// Name.
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
    /// Bridge port with hairpin.
    pub hairpin: bool,
    /// The kernel makes no IPv6 address by itself (or IPv6 is off).
    pub no_autoconf: bool,
    /// Index of the other end in its own namespace.
    pub peer: Option<u32>,
    /// Id, in the namespace it was read in, of the other end's; `None`: the same.
    pub peer_netns: Option<i32>,
    /// Link group.
    pub group: u32,
    /// A bridge that runs the spanning tree protocol.
    pub stp: bool,
}

/// What is there of an endpoint. Everything empty: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualEndpoint {
    /// The link with the host side's name.
    pub host: Option<ActualLink>,
    /// Host routes that lead out of it.
    pub host_routes: Vec<IpNet>,
    /// Permanent neighbours on it.
    pub host_neighbours: Vec<(IpAddr, Mac)>,
    /// The link with the sandbox side's name.
    pub pod: Option<ActualLink>,
    /// The two are each other's ends.
    pub paired: bool,
    /// `lo` in the sandbox is up.
    pub loopback_up: bool,
    /// On the sandbox's side.
    pub pod_addresses: Vec<IpNet>,
    /// Out of the sandbox's side.
    pub pod_routes: Vec<Route>,
    /// Permanent, on the sandbox's side.
    pub pod_neighbours: Vec<(IpAddr, Mac)>,
    /// Packets between 127.0.0.1 and the pod may pass the host side.
    pub local_routes: bool,
    /// Bandwidth limits.
    pub limits: ActualLimits,
}

/// Bandwidth limits that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ActualLimits {
    /// Root of the host side.
    pub to_pod: Option<Shape>,
    /// Index of the intermediate device, and whether it is up.
    pub ifb: Option<(u32, bool)>,
    /// Root of the intermediate device.
    pub from_pod: Option<Shape>,
    /// The host side has a hook for what comes in.
    pub hook: bool,
    /// Where the hook leads to.
    pub redirect: Option<u32>,
}
