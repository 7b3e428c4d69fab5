//! The steps that a plan is made of.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv6Net};

use crate::{Repair, RepairKind};
use netd_domain::{Mac, Route};

/// In whose namespace a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The host's.
    Host,
    /// The sandbox's.
    Pod,
}

/// What of a link's settings has to change; all of it in one message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkChange {
    /// Bring it up.
    pub up: bool,
    /// Set the MTU.
    pub mtu: bool,
    /// Set the MAC.
    pub mac: bool,
    /// Make it a port of the bridge.
    pub master: bool,
    /// Hairpin on the port: a pod reaches itself by its host port.
    pub hairpin: bool,
    /// No IPv6 address of the kernel's own making: no DAD, no router solicitation,
    /// which a bridge would flood to every port.
    pub no_autoconf: bool,
}

impl LinkChange {
    /// Nothing to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A rate limit as the kernel's token bucket takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bytes a second.
    pub rate: u64,
    /// Bucket, bytes.
    pub burst: u32,
}

/// The device that a limit sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shaped {
    /// Root of the host side: towards the pod.
    HostLink,
    /// Root of the intermediate device: from the pod.
    Ifb,
}

/// One step; most are one netlink request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Remove a pair of ours that can't be mended.
    DeleteLink,
    /// Both ends at once, the host's up and on its bridge.
    CreateVeth,
    /// Change the host side.
    SetHostLink(LinkChange),
    /// Host route to an address of the pod.
    HostRoute(IpNet),
    /// Permanent neighbour for an address of the pod.
    HostNeighbour(IpAddr),
    /// `lo` of the sandbox.
    PodLoopbackUp,
    /// Change the sandbox's side.
    SetPodLink(LinkChange),
    /// Remove an address that has the wrong prefix length.
    RemovePodAddress(IpNet),
    /// Add an address.
    PodAddress(IpNet),
    /// Permanent neighbour for the next hop.
    PodNeighbour(IpAddr),
    /// Add a route.
    PodRoute(Route),
    /// The device that traffic from the pod is led through to be limited.
    CreateIfb,
    /// Bring that device up.
    IfbUp,
    /// Limit a device.
    Limit(Shaped, Shape),
    /// Hook for what comes from the pod.
    IngressHook,
    /// Lead what comes from the pod to the intermediate device.
    Redirect,
    /// Let packets between 127.0.0.1 and the pod pass the host side (host ports).
    LocalRoutes,
}

impl Op {
    /// Where it happens.
    pub fn side(&self) -> Side {
        match self {
            Self::PodLoopbackUp
            | Self::SetPodLink(_)
            | Self::RemovePodAddress(_)
            | Self::PodAddress(_)
            | Self::PodNeighbour(_)
            | Self::PodRoute(_) => Side::Pod,
            _ => Side::Host,
        }
    }

    /// What kind of repair it is.
    pub fn kind(&self) -> RepairKind {
        match self {
            Self::DeleteLink
            | Self::CreateVeth
            | Self::SetHostLink(_)
            | Self::PodLoopbackUp
            | Self::SetPodLink(_) => RepairKind::Link,
            Self::RemovePodAddress(_) | Self::PodAddress(_) => RepairKind::Address,
            Self::HostRoute(_) | Self::PodRoute(_) => RepairKind::Route,
            Self::HostNeighbour(_) | Self::PodNeighbour(_) => RepairKind::Neighbour,
            Self::CreateIfb
            | Self::IfbUp
            | Self::Limit(..)
            | Self::IngressHook
            | Self::Redirect => RepairKind::Qdisc,
            Self::LocalRoutes => RepairKind::Sysctl,
        }
    }

    /// As it is reported.
    pub fn repair(&self, whose: &impl fmt::Display) -> Repair {
        Repair { kind: self.kind(), detail: format!("{whose}: {self}") }
    }
}

impl fmt::Display for LinkChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.up, "up"),
            (self.mtu, "MTU"),
            (self.mac, "MAC"),
            (self.master, "bridge"),
            (self.hairpin, "hairpin"),
            (self.no_autoconf, "no IPv6 autoconfiguration"),
        ];
        let names: Vec<_> = parts.iter().filter(|(on, _)| *on).map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeleteLink => f.write_str("remove a broken veth pair"),
            Self::CreateVeth => f.write_str("make the veth pair"),
            Self::SetHostLink(change) => write!(f, "set the host side's {change}"),
            Self::HostRoute(net) => write!(f, "host route to {net}"),
            Self::HostNeighbour(ip) => write!(f, "host neighbour {ip}"),
            Self::PodLoopbackUp => f.write_str("bring lo up"),
            Self::SetPodLink(change) => write!(f, "set the sandbox side's {change}"),
            Self::RemovePodAddress(net) => write!(f, "remove the wrong address {net}"),
            Self::PodAddress(net) => write!(f, "address {net}"),
            Self::PodNeighbour(ip) => write!(f, "neighbour {ip}"),
            Self::PodRoute(route) => match route.gateway {
                Some(via) => write!(f, "route to {} via {via}", route.destination),
                None => write!(f, "route to {}", route.destination),
            },
            Self::CreateIfb => f.write_str("make the device that limits what the pod sends"),
            Self::IfbUp => f.write_str("bring the device up that limits what the pod sends"),
            Self::Limit(Shaped::HostLink, s) => write!(f, "limit to the pod {} B/s", s.rate),
            Self::Limit(Shaped::Ifb, s) => write!(f, "limit from the pod {} B/s", s.rate),
            Self::IngressHook => f.write_str("hook for what the pod sends"),
            Self::LocalRoutes => f.write_str("allow host ports from 127.0.0.1"),
            Self::Redirect => f.write_str("lead what the pod sends to its limit"),
        }
    }
}

/// The link-local address that an IPv6 interface has to have (RFC 4291, sections 2.1
/// and 2.5.1, Modified EUI-64): netd adds it itself, as with the kernel's comes DAD.
pub fn link_local(mac: Mac) -> IpNet {
    let m = mac.bytes();
    let tail = [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]];
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&tail);
    const PREFIX: u8 = 64;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), PREFIX))
}
