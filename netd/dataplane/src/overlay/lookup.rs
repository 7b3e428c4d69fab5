//! Questions to the kernel that change nothing.

use std::{io, net::IpAddr, path::Path};

use ipnet::IpNet;
use netlink_packet_route::link::InfoKind;

use super::{dump, worker::Overlay};
use crate::{
    DataplaneError,
    error::{failed, refused},
    events::ExpectedUnderlay,
    netlink::{
        Batch,
        link::{LinkId, read_mac},
        overlay_device::{self, HeldDevice},
        route::{self, RouteAnswer},
    },
    network::underlay,
};
use netd_domain::{IfName, Mac};

/// How the device that leads to the other nodes is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayChoice {
    /// That of the IPv4 default route, else of the IPv6 one; not one of netd's own.
    DefaultRoute,
    /// The one that has one of these addresses and is up, the first first; else the default
    /// route's.
    Keeping(Vec<IpAddr>),
    /// By its name.
    Name(IfName),
    /// The one that has this address.
    Address(IpAddr),
    /// The one that packets to this address leave by.
    Reaches(IpAddr),
}

/// The device that leads to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnderlayFound {
    /// Its name.
    pub device: IfName,
    /// Interface index.
    pub index: u32,
    /// Bytes.
    pub mtu: u32,
    /// In the kernel's order, with their prefix lengths: not link-local ones, and of
    /// IPv6 none that is temporary, deprecated or still being checked.
    pub addresses: Vec<IpNet>,
}

/// The kernel's answer for one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRoute {
    /// The route that was taken leads here.
    pub destination: IpNet,
    /// Name of the device that packets leave by.
    pub device: String,
    /// `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source that this node would send from.
    pub source: Option<IpAddr>,
    /// Bytes: the route's, else the device's.
    pub mtu: u32,
    /// Who made the route (uapi/linux/rtnetlink.h, `RTPROT_*`).
    pub protocol: u8,
    /// Whether netd made it.
    pub ours: bool,
    /// The route's metric.
    pub metric: u32,
}

/// What went over a device since it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Its name.
    pub device: IfName,
    /// Bytes received.
    pub received_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets of either direction that were dropped or broken.
    pub lost_packets: u64,
}

/// What the overlay can be made of in this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayCapabilities {
    /// vxlan devices.
    pub vxlan: bool,
    /// WireGuard devices; else the tunnel process has to do it.
    pub wireguard: bool,
    /// Tun devices, which the tunnel process needs.
    pub tun: bool,
}

impl Overlay {
    pub(super) fn capabilities(&mut self) -> Result<OverlayCapabilities, DataplaneError> {
        // A module may have come since.
        self.kinds = None;
        let kinds = self.kinds()?;
        let has = |kind| kinds.contains(&kind);
        Ok(OverlayCapabilities {
            vxlan: has(InfoKind::Vxlan),
            wireguard: has(InfoKind::Wireguard),
            tun: has(InfoKind::Tun) && Path::new("/dev/net/tun").exists(),
        })
    }

    fn ask_route(
        &mut self,
        ip: IpAddr,
        entry: bool,
    ) -> Result<Option<RouteAnswer>, DataplaneError> {
        let what = || format!("asking for the route to {ip}");
        let mut batch = Batch::new();
        batch.route(route::look_up_entry(ip, entry), 0);
        let (results, messages) = self.kernel.socket.exchange(batch).map_err(failed(what()))?;
        match results.into_iter().next() {
            Some(Err(r)) if is_no_way(r.errno) => Ok(None),
            Some(Err(r)) => Err(refused(what(), &r)),
            _ => Ok(messages.iter().find_map(|message| route::read_answer(message.body()))),
        }
    }

    pub(super) fn route_to(&mut self, ip: IpAddr) -> Result<Option<KernelRoute>, DataplaneError> {
        // What happens to a packet, and the table's entry that says so.
        let (Some(way), Some(entry)) = (self.ask_route(ip, false)?, self.ask_route(ip, true)?)
        else {
            return Ok(None);
        };
        let Some(index) = way.link else { return Ok(None) };
        let link = dump::link(&mut self.kernel.socket, LinkId::Index(index))
            .map_err(failed(format!("asking for the route to {ip}")))?;
        Ok(link.map(|link| KernelRoute {
            destination: entry.destination,
            device: link.name,
            gateway: way.gateway,
            source: way.source,
            mtu: way.mtu.or(entry.mtu).unwrap_or(link.mtu),
            protocol: entry.protocol,
            ours: entry.protocol == crate::netlink::route::NETD_PROTOCOL,
            metric: entry.metric,
        }))
    }

    pub(super) fn foreign_vtep(
        &mut self,
        device: &IfName,
        vni: u32,
    ) -> Result<Option<Mac>, DataplaneError> {
        let held = dump::link(&mut self.kernel.socket, LinkId::Name(device.as_str()))
            .map_err(failed(format!("{device}: reading its MAC")))?;
        let is_same = |held: &HeldDevice| held.vxlan.as_ref().is_some_and(|held| held.vni == vni);
        let foreign = held.filter(|held| !held.marked && is_same(held));
        Ok(foreign.and_then(|held| read_mac(&held.mac?)))
    }

    pub(super) fn has_tunnel(&mut self, device: &IfName) -> Result<bool, DataplaneError> {
        let held = dump::link(&mut self.kernel.socket, LinkId::Name(device.as_str()))
            .map_err(failed(format!("{device}: reading its kind")))?;
        Ok(held.is_some_and(|held| held.marked && held.kind == "tun"))
    }

    pub(super) fn counters(
        &mut self,
        names: &[IfName],
    ) -> Result<Vec<DeviceCounters>, DataplaneError> {
        let mut found = Vec::new();
        for name in names {
            let mut batch = Batch::new();
            batch.route(overlay_device::get_with_counters(name.as_str()), 0);
            let what = || failed(format!("{name}: reading its counters"));
            let (_, messages) = self.kernel.socket.exchange(batch).map_err(what())?;
            let Some(stats) = messages.iter().find_map(overlay_device::read_counters) else {
                continue;
            };
            let lost = [stats.rx_dropped, stats.tx_dropped, stats.rx_errors, stats.tx_errors];
            found.push(DeviceCounters {
                device: name.clone(),
                received_bytes: stats.rx_bytes,
                received_packets: stats.rx_packets,
                sent_bytes: stats.tx_bytes,
                sent_packets: stats.tx_packets,
                lost_packets: lost.iter().fold(0, |sum: u64, n| sum.saturating_add(*n)),
            });
        }
        Ok(found)
    }

    pub(super) fn underlay_of(
        &mut self,
        choice: &UnderlayChoice,
    ) -> Result<UnderlayFound, DataplaneError> {
        let looking = || format!("looking for the device that leads to the other nodes ({choice})");
        let nothing =
            |why: &str| DataplaneError::Kernel { operation: looking(), errno: why.into() };
        let shared = self.kernel.shared.clone();
        let kept = self.kept(choice).map_err(failed(looking()))?;
        let socket = &mut self.kernel.socket;
        let found = match choice {
            UnderlayChoice::Name(name) => dump::link(socket, LinkId::Name(name.as_str())),
            UnderlayChoice::Keeping(_) if kept.is_some() => Ok(kept),
            UnderlayChoice::DefaultRoute | UnderlayChoice::Keeping(_) => {
                match underlay::find(socket, None, &shared) {
                    Ok(Some(link)) => dump::link(socket, LinkId::Index(link.index)),
                    Ok(None) => return Err(nothing("there is no default route; name the device")),
                    Err(e) => Err(e),
                }
            }
            UnderlayChoice::Address(ip) => match dump::link_with(socket, *ip) {
                Ok(Some(index)) => dump::link(socket, LinkId::Index(index)),
                other => other.map(|_| None),
            },
            UnderlayChoice::Reaches(ip) => {
                match self.ask_route(*ip, false)?.and_then(|way| way.link) {
                    Some(index) => dump::link(&mut self.kernel.socket, LinkId::Index(index)),
                    None => Ok(None),
                }
            }
        };
        let link = found.map_err(failed(looking()))?.ok_or_else(|| nothing("there is none"))?;
        if underlay::is_own(&shared, link.index, &link.name) {
            return Err(nothing(&format!("{} is netd's own device", link.name)));
        }
        let addresses = dump::usable_addresses(&mut self.kernel.socket, link.index)
            .map_err(failed(looking()))?;
        let device = link
            .name
            .parse()
            .map_err(|e| nothing(&format!("{}: {e}; name another device", link.name)))?;
        self.kernel.shared.table.lock().overlay.know_underlay(Some(ExpectedUnderlay {
            name: link.name,
            index: link.index,
            mtu: link.mtu,
            addresses: addresses.clone(),
        }));
        Ok(UnderlayFound { device, index: link.index, mtu: link.mtu, addresses })
    }
}

impl Overlay {
    /// The device that is kept: up, with one of the addresses, and not netd's own.
    fn kept(&mut self, choice: &UnderlayChoice) -> io::Result<Option<HeldDevice>> {
        let UnderlayChoice::Keeping(addresses) = choice else { return Ok(None) };
        for ip in addresses {
            let Some(index) = dump::link_with(&mut self.kernel.socket, *ip)? else { continue };
            let link = dump::link(&mut self.kernel.socket, LinkId::Index(index))?;
            let shared = &self.kernel.shared;
            let fits = |l: &HeldDevice| l.up && !underlay::is_own(shared, l.index, &l.name);
            if let Some(link) = link.filter(fits) {
                return Ok(Some(link));
            }
        }
        Ok(None)
    }
}

/// Answers that mean "no route", or "a route to nowhere".
fn is_no_way(errno: i32) -> bool {
    matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL | libc::EACCES)
}

impl std::fmt::Display for UnderlayChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DefaultRoute | Self::Keeping(_) => f.write_str("the default route's"),
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(ip) => write!(f, "the one that has {ip}"),
            Self::Reaches(ip) => write!(f, "the one that leads to {ip}"),
        }
    }
}
