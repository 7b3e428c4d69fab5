//! The steps that a plan is made of. Each carries what it sets, from what to what.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::{Repair, RepairKind};
use netd_domain::{IfName, Mac, Route};

/// In whose namespace a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Pod,
}

/// A value that the kernel has, and the one it is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change<T> {
    /// `None`: the kernel has none.
    pub from: Option<T>,
    pub to: T,
}

impl<T: PartialEq> Change<T> {
    /// `None` if the kernel has it already.
    pub(crate) fn needed(from: Option<T>, to: T) -> Option<Self> {
        (from.as_ref() != Some(&to)).then_some(Self { from, to })
    }
}

/// What changes of a link; all of it in one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LinkChange {
    /// Bring it up.
    pub up: bool,
    /// Bytes.
    pub mtu: Option<Change<u32>>,
    pub mac: Option<Change<Mac>>,
    /// Interface index of the bridge that it is to be a port of; 0: of none.
    pub master: Option<Change<u32>>,
    /// The link group by which the firewall knows it.
    pub group: Option<Change<u32>>,
    /// Hairpin on the port: a pod reaches itself by its host port.
    pub hairpin: bool,
    /// No IPv6 address of the kernel's own making: no DAD, no router solicitation,
    /// which a bridge would flood to every port.
    pub no_autoconf: bool,
    /// The host forwards IPv4 packets that come in by it: new links may have that off.
    pub forwarding: bool,
}

impl LinkChange {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The kernel drops the permanent neighbours of a link that goes down or gets a new MAC.
    pub(crate) fn loses_neighbours(&self) -> bool {
        self.up || self.mac.is_some()
    }

    fn settings(&self) -> Vec<(&'static str, String, String)> {
        let flag =
            |name, on: bool, from: &str, to: &str| on.then(|| (name, from.into(), to.into()));
        let bridge = |index: u32| match index {
            0 => "none".to_owned(),
            index => format!("interface {index}"),
        };
        let all = [
            flag("state", self.up, "down", "up"),
            self.mtu.map(|c| ("MTU", shown(c.from, "none"), c.to.to_string())),
            self.mac.map(|c| ("MAC", shown(c.from, "none"), c.to.to_string())),
            self.master.map(|c| ("bridge", shown(c.from.map(bridge), "none"), bridge(c.to))),
            flag("hairpin", self.hairpin, "off", "on"),
            flag("IPv4 forwarding", self.forwarding, "off", "on"),
            flag("IPv6 autoconfiguration", self.no_autoconf, "on", "off"),
            self.group.map(|c| ("link group", shown(c.from, "none"), c.to.to_string())),
        ];
        all.into_iter().flatten().collect()
    }
}

fn shown<T: fmt::Display>(value: Option<T>, none: &str) -> String {
    value.map_or_else(|| none.to_owned(), |value| value.to_string())
}

/// A permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub ip: IpAddr,
    pub mac: Change<Mac>,
}

/// A rate limit as the kernel's token bucket takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes a second.
    pub rate: u64,
    /// Bucket, bytes.
    pub burst: u32,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B/s with a burst of {} B", self.rate, self.burst)
    }
}

/// The device that a limit sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shaped {
    /// Root of the host side: towards the pod.
    HostLink,
    /// Root of the intermediate device: from the pod.
    Ifb,
}

/// One step; most are one netlink request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    /// Remove a pair of ours that can't be repaired.
    DeleteLink,
    /// Both ends of the wiring's pair at once, the host's up and on its bridge.
    CreateVeth,
    /// Takes the host's side down, because it is to be renamed.
    LowerHostLink,
    /// The name is what others find the host's side by.
    RenameHostLink {
        from: String,
        to: IfName,
    },
    SetHostLink(LinkChange),
    /// Host route to an address of the pod.
    HostRoute(IpNet),
    /// Permanent neighbour for an address of the pod.
    HostNeighbour(Neighbour),
    /// `lo` of the sandbox.
    PodLoopbackUp,
    SetPodLink(LinkChange),
    /// Remove an address that has the wrong prefix length.
    RemovePodAddress(IpNet),
    PodAddress(IpNet),
    /// Permanent neighbour for the next hop.
    PodNeighbour(Neighbour),
    PodRoute(Route),
    /// In the place of another program's.
    ReplacePodRoute(Route),
    /// The device that traffic from the pod is led through to be limited.
    CreateIfb {
        /// Bytes.
        mtu: u32,
    },
    IfbUp,
    Limit(Shaped, Change<Shape>),
    /// Hook for what comes from the pod.
    IngressHook,
    /// Lead what comes from the pod to the intermediate device.
    Redirect,
    /// Let packets between 127.0.0.1 and the pod pass the host side (host ports).
    LocalRoutes,
}

impl Op {
    pub(crate) fn side(&self) -> Side {
        match self {
            Self::PodLoopbackUp
            | Self::SetPodLink(_)
            | Self::RemovePodAddress(_)
            | Self::PodAddress(_)
            | Self::PodNeighbour(_)
            | Self::PodRoute(_)
            | Self::ReplacePodRoute(_) => Side::Pod,
            _ => Side::Host,
        }
    }

    pub(crate) fn kind(&self) -> RepairKind {
        match self {
            Self::DeleteLink
            | Self::CreateVeth
            | Self::LowerHostLink
            | Self::RenameHostLink { .. }
            | Self::SetHostLink(_)
            | Self::PodLoopbackUp
            | Self::SetPodLink(_) => RepairKind::Link,
            Self::RemovePodAddress(_) | Self::PodAddress(_) => RepairKind::Address,
            Self::HostRoute(_) | Self::PodRoute(_) | Self::ReplacePodRoute(_) => RepairKind::Route,
            Self::HostNeighbour(_) | Self::PodNeighbour(_) => RepairKind::Neighbour,
            Self::CreateIfb { .. }
            | Self::IfbUp
            | Self::Limit(..)
            | Self::IngressHook
            | Self::Redirect => RepairKind::Qdisc,
            Self::LocalRoutes => RepairKind::Sysctl,
        }
    }

    /// The step as a repair of `whose`, for logs and metrics.
    pub(crate) fn repair(&self, whose: &impl fmt::Display) -> Repair {
        Repair { kind: self.kind(), detail: format!("{whose}: {self}") }
    }

    /// What is not as it should be, in words.
    pub(crate) fn difference(&self) -> String {
        match self {
            Self::DeleteLink => "the veth pair can't be repaired".into(),
            Self::CreateVeth => "the veth pair is missing".into(),
            Self::LowerHostLink => "the host's side has another name".into(),
            Self::RenameHostLink { from, to } => format!("name is {from}, should be {to}"),
            Self::SetHostLink(change) | Self::SetPodLink(change) => {
                let is = |(name, from, to)| format!("{name} is {from}, should be {to}");
                change.settings().into_iter().map(is).collect::<Vec<_>>().join("; ")
            }
            Self::HostNeighbour(n) | Self::PodNeighbour(n) => {
                format!(
                    "neighbour {} is {}, should be {}",
                    n.ip,
                    shown(n.mac.from, "missing"),
                    n.mac.to
                )
            }
            Self::PodLoopbackUp => "state of lo is down, should be up".into(),
            Self::RemovePodAddress(net) => format!("address {net} has the wrong prefix length"),
            Self::CreateIfb { .. } => "the device that limits what the pod sends is missing".into(),
            Self::IfbUp => "the device that limits what the pod sends is down, should be up".into(),
            Self::Limit(Shaped::HostLink, limit) => {
                format!("limit to the pod is {}, should be {}", shown(limit.from, "none"), limit.to)
            }
            Self::Limit(Shaped::Ifb, limit) => {
                format!(
                    "limit from the pod is {}, should be {}",
                    shown(limit.from, "none"),
                    limit.to
                )
            }
            Self::IngressHook => "the hook for what the pod sends is missing".into(),
            Self::Redirect => "what the pod sends is not led to its limit".into(),
            Self::LocalRoutes => "host ports from 127.0.0.1 are off, should be on".into(),
            Self::HostRoute(_)
            | Self::PodAddress(_)
            | Self::PodRoute(_)
            | Self::ReplacePodRoute(_) => {
                format!("{self} is missing")
            }
        }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = |(name, from, to)| format!("{name} from {from} to {to}");
        f.write_str(&self.settings().into_iter().map(change).collect::<Vec<_>>().join(", "))
    }
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "neighbour {} from {} to {}", self.ip, shown(self.mac.from, "none"), self.mac.to)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLink => f.write_str("remove a broken veth pair"),
            Self::CreateVeth => f.write_str("make the veth pair"),
            Self::LowerHostLink => f.write_str("take the host side down to rename it"),
            Self::RenameHostLink { from, to } => {
                write!(f, "rename the host side from {from} to {to}")
            }
            Self::SetHostLink(change) => write!(f, "set the host side's {change}"),
            Self::HostRoute(net) => write!(f, "host route to {net}"),
            Self::HostNeighbour(neighbour) => write!(f, "host {neighbour}"),
            Self::PodLoopbackUp => f.write_str("bring lo up"),
            Self::SetPodLink(change) => write!(f, "set the sandbox side's {change}"),
            Self::RemovePodAddress(net) => write!(f, "remove the wrong address {net}"),
            Self::PodAddress(net) => write!(f, "address {net}"),
            Self::PodNeighbour(neighbour) => write!(f, "{neighbour}"),
            Self::PodRoute(route) | Self::ReplacePodRoute(route) => match route.gateway {
                Some(via) => write!(f, "route to {} via {via}", route.destination),
                None => write!(f, "route to {}", route.destination),
            },
            Self::CreateIfb { .. } => f.write_str("make the device that limits what the pod sends"),
            Self::IfbUp => f.write_str("bring the device up that limits what the pod sends"),
            Self::Limit(Shaped::HostLink, limit) => write!(f, "limit to the pod {}", limit.to),
            Self::Limit(Shaped::Ifb, limit) => write!(f, "limit from the pod {}", limit.to),
            Self::IngressHook => f.write_str("hook for what the pod sends"),
            Self::LocalRoutes => f.write_str("allow host ports from 127.0.0.1"),
            Self::Redirect => f.write_str("lead what the pod sends to its limit"),
        }
    }
}
