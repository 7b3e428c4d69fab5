//! Settings of the dataplane, and what it reports.

use std::{fmt, net::IpAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::firewall::FirewallSettings;
use netd_domain::{IfName, Mac, Route};

/// Settings of a dataplane.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The device whose MTU the networks follow; `None`: the default route's.
    pub underlay: Option<IfName>,
    /// The namespace to work on; `None`: that of the thread that starts the dataplane.
    pub host_netns: Option<Arc<OwnedFd>>,
    /// Buffer for events that are not read yet, bytes; `None`: 16 MiB, which is enough for some
    /// thousand attaches at once.
    pub event_buffer: Option<i32>,
    /// Whether to ask the kernel for what makes attaches faster and changes nothing else:
    /// another processor for the firewall's thread than the links', and falling ids of the
    /// sandboxes' namespaces where there are many. See [`crate::may_use_every_cpu`].
    pub kernel_hints: bool,
    /// Whether what networks' bridges only bridge is to pass iptables and nftables, where the
    /// kernel has br_netfilter loaded: kube-proxy translates addresses there.
    pub bridges_pass_iptables: bool,
    /// Marks and programs of the firewall.
    pub firewall: FirewallSettings,
}

/// What an attach made, and how long its parts took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attached {
    /// Default routes that were left out, because another interface of the sandbox has one that
    /// would have had to be replaced.
    pub skipped_routes: Vec<Route>,
    /// Links, addresses, routes, neighbours.
    pub kernel: Duration,
    /// The firewall's elements; made at the same time as the rest.
    pub firewall: Duration,
}

/// Kind of object that was repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RepairKind {
    /// A device, its settings, or whether it is a port of the bridge.
    Link,
    /// An address.
    Address,
    /// A route.
    Route,
    /// A permanent neighbour.
    Neighbour,
    /// The nftables table.
    Firewall,
    /// A kernel setting.
    Sysctl,
    /// A bandwidth limit.
    Qdisc,
    /// A device of the overlay, or its settings.
    OverlayDevice,
    /// A forwarding entry of a vxlan device.
    Fdb,
    /// A peer of a WireGuard device.
    Peer,
}

impl RepairKind {
    /// The name that metrics and the API use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Route => "route",
            Self::Neighbour => "neighbour",
            Self::Firewall => "firewall",
            Self::Sysctl => "sysctl",
            Self::Qdisc => "qdisc",
            Self::OverlayDevice => "overlay_device",
            Self::Fdb => "fdb",
            Self::Peer => "peer",
        }
    }
}

/// A difference between the desired state and the kernel that was put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    pub kind: RepairKind,
    /// The change, for people.
    pub detail: String,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// The kernel's state may no longer be the desired one: compare and repair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Drift {
    /// The endpoint with this interface on the host.
    Endpoint(IfName),
    /// The sandbox's side of the endpoint with this interface on the host; and the kind of
    /// object that changed.
    Pod(IfName, RepairKind),
    /// The network with this bridge.
    Network(IfName),
    /// The nftables table.
    Firewall,
    /// A kernel setting that every network needs.
    Sysctl,
    /// The underlay's MTU or the default route.
    Underlay,
    /// The addresses of docker0.
    Docker0,
    /// The addresses of the host, on which host ports are.
    HostAddresses,
    /// An object of the overlay, or the addresses, MTU or state of the underlay's device: find
    /// the underlay again and synchronise.
    Overlay,
    /// Events were lost, so everything may have changed.
    Everything,
}

/// A link on the host with a name that netd gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    pub ifname: IfName,
    /// It is detached and waits for the reaper.
    pub detached: bool,
    /// The pod's side is in another network namespace, which therefore lives.
    pub lives: bool,
    /// It is a side of a veth pair, not only the device that limits what the pod sends.
    pub is_pair: bool,
    pub index: u32,
}

/// A link on the host that leads into a pod, whoever made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// As the kernel has it, which allows more than an [`IfName`].
    pub name: String,
    /// Interface index.
    pub index: u32,
    /// The name, if it is one that netd gives.
    pub ours: Option<IfName>,
    /// The bridge that it is a port of.
    pub bridge: Option<IfName>,
    /// The pod's side's, if a namespace shows it.
    pub mac: Option<Mac>,
    /// The host's side's.
    pub host_mac: Option<Mac>,
    /// Bytes.
    pub mtu: u32,
    /// Those of the pod's side, link-local ones too, and those that answer behind it.
    pub addresses: Vec<IpAddr>,
}
