//! What goes in and out of the dataplane.

use std::{fmt, os::fd::OwnedFd, sync::Arc, time::Duration};

use crate::firewall::FirewallSettings;
use netd_domain::IfName;

/// How a dataplane is set up.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The device whose MTU the networks follow; `None`: the default route's.
    pub underlay: Option<IfName>,
    /// The namespace to work on; `None`: that of the thread that starts the dataplane.
    pub host_netns: Option<Arc<OwnedFd>>,
    /// Room for events that are not read yet, bytes; `None`: 16 MiB, which is enough
    /// for some thousand attaches at once.
    pub event_buffer: Option<i32>,
    /// Marks and programs of the firewall.
    pub firewall: FirewallSettings,
}

/// Where the time of an attach went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachTimes {
    /// Links, addresses, routes, neighbours.
    pub kernel: Duration,
    /// The firewall's elements; at the same time as the rest.
    pub firewall: Duration,
}

/// What kind of thing was repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RepairKind {
    /// A device, its settings, or its place on the bridge.
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

/// One thing that was not as it had to be, and now is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// Of which kind.
    pub kind: RepairKind,
    /// What was done, for people.
    pub detail: String,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name(), self.detail)
    }
}

/// Something may have been lost or changed by somebody else: look and repair.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Drift {
    /// The endpoint with this interface on the host.
    Endpoint(IfName),
    /// The network with this bridge.
    Network(IfName),
    /// The nftables table.
    Firewall,
    /// A kernel setting that every network needs.
    Sysctl,
    /// The underlay's MTU or the default route.
    Underlay,
    /// docker0's addresses.
    Docker0,
    /// Something of the overlay, or of the device below it (addresses, MTU, up or down):
    /// look for the underlay again and synchronise.
    Overlay,
    /// Events were lost: anything may have changed.
    Everything,
}

/// A link on the host that carries a name of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub ifname: IfName,
    /// On its way out: waits for the reaper.
    pub parked: bool,
    /// Interface index.
    pub index: u32,
}
