//! The overlay's neighbours, forwarding entries and routes, by interface index. Pure.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::route::NETD_PROTOCOL;

/// `RTPROT_BOOT`: what `ip route` and flannel give their routes.
pub(crate) const BOOT_PROTOCOL: u8 = 3;
/// `RTPROT_KERNEL`: what the kernel makes of addresses.
pub(crate) const KERNEL_PROTOCOL: u8 = 2;

/// A route of the main table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldRoute {
    pub destination: IpNet,
    pub metric: u32,
    /// Who made it (uapi/linux/rtnetlink.h, `RTPROT_*`).
    pub protocol: u8,
    pub hop: KernelHop,
    /// Bytes; `None`: the link's.
    pub mtu: Option<u32>,
}

impl HeldRoute {
    /// One of netd's.
    pub(crate) fn ours(destination: IpNet, metric: u32, hop: KernelHop, mtu: Option<u32>) -> Self {
        Self { destination, metric, protocol: NETD_PROTOCOL, hop, mtu }
    }
}

/// Where a route leads, by interface index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KernelHop {
    /// Nowhere, silently.
    Nowhere,
    /// Out of a link.
    Link(u32),
    /// To a next hop on a link.
    Via { gateway: IpAddr, link: u32, onlink: bool },
    /// Elsewhere, e.g. several ways at once. None of ours.
    Other,
}

impl KernelHop {
    /// The link that it leads out of.
    pub(crate) fn link(&self) -> Option<u32> {
        match self {
            Self::Link(link) | Self::Via { link, .. } => Some(*link),
            Self::Nowhere | Self::Other => None,
        }
    }
}

/// One object by interface index. The order only decides between two for one key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OverlayEntry {
    /// A permanent neighbour.
    Neighbour { link: u32, ip: IpAddr, mac: [u8; 6] },
    /// A permanent forwarding entry.
    Fdb { link: u32, mac: [u8; 6], remote: IpAddr },
    /// A route of the main table.
    Route(HeldRoute),
}

impl fmt::Display for OverlayEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = |mac: &[u8; 6]| {
            let [a, b, c, d, e, g] = mac;
            format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
        };
        match self {
            Self::Neighbour { link, ip, mac: m } => {
                write!(f, "neighbour {ip} at {} on link {link}", mac(m))
            }
            Self::Fdb { link, mac: m, remote } => {
                write!(f, "forwarding entry {} to {remote} on link {link}", mac(m))
            }
            Self::Route(route) => {
                write!(f, "route to {}", route.destination)?;
                match route.hop {
                    KernelHop::Nowhere => write!(f, " (blackhole)"),
                    KernelHop::Link(link) => write!(f, " on link {link}"),
                    KernelHop::Via { gateway, link, .. } => {
                        write!(f, " via {gateway} on link {link}")
                    }
                    KernelHop::Other => Ok(()),
                }
            }
        }
    }
}
