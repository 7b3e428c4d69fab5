//! Reads the overlay's devices and entries from the kernel.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::InfoKind};

use super::{
    device_plan,
    objects::{Objects, is_overlay_metric},
};
use crate::netlink::{
    Received, Socket,
    address::{self, HeldAddress},
    entry::{BOOT_PROTOCOL, HeldRoute, OverlayEntry},
    link::{self, LinkId},
    neighbour,
    overlay_device::{self as message, HeldDevice},
    overlay_entry,
    query::{self, some_family},
    route::NETD_PROTOCOL,
};

/// The device with this name or index, if there is one.
pub(super) fn link(socket: &mut Socket, which: LinkId<'_>) -> io::Result<Option<HeldDevice>> {
    query::link_as(socket, which, message::read)
}

/// The device with this name, and its addresses.
pub(super) fn device(socket: &mut Socket, name: &str) -> io::Result<device_plan::ActualDevice> {
    let device = link(socket, LinkId::Name(name))?;
    let addresses = match &device {
        Some(device) => addresses(socket, device.index)?,
        None => Vec::new(),
    };
    Ok(device_plan::ActualDevice { device, addresses })
}

/// A link's addresses but link-local ones.
pub(super) fn addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<IpNet>> {
    let all = addresses_of(socket, index)?;
    Ok(all.iter().filter(|a| a.is_global()).map(|a| a.net).collect())
}

/// A link's global addresses that are neither temporary, deprecated nor being checked.
pub(super) fn usable_addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<IpNet>> {
    let all = addresses_of(socket, index)?;
    Ok(all.iter().filter(|a| a.is_lasting()).map(|a| a.net).collect())
}

fn addresses_of(socket: &mut Socket, index: u32) -> io::Result<Vec<HeldAddress>> {
    let all = some_family(socket.dump(address::list(index)))?;
    let here = all.iter().filter_map(|message| address::read_body(message.body()));
    Ok(here.filter(|address| address.link == index).collect())
}

/// The link that has this address.
pub(super) fn link_with(socket: &mut Socket, ip: IpAddr) -> io::Result<Option<u32>> {
    let every = 0;
    let all = some_family(socket.dump(address::list(every)))?;
    let mut all = all.iter().filter_map(|message| address::read_body(message.body()));
    Ok(all.find(|address| address.net.addr() == ip).map(|address| address.link))
}

/// Every device with netd's mark. `kinds`: kinds that the kernel knows; asked for an unknown
/// one it would send every link.
pub(super) fn marked(socket: &mut Socket, kinds: &[InfoKind]) -> io::Result<Vec<HeldDevice>> {
    let mut found = Vec::new();
    for kind in kinds {
        let all = socket.dump(link::get_all(Some(kind.clone())))?;
        found.extend(all.iter().filter_map(message::read).filter(|device| device.marked));
    }
    Ok(found)
}

/// The overlay's objects: routes with netd's mark wherever they lead, and the permanent
/// neighbours and forwarding entries of the overlay's devices, whichever program made them.
/// The second value has the routes that flannel may have made.
pub(super) fn objects(
    socket: &mut Socket,
    devices: &[HeldDevice],
) -> io::Result<(Objects, Vec<HeldRoute>)> {
    let (mut held, mut foreign) = (Objects::default(), Vec::new());
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        for protocol in [NETD_PROTOCOL, BOOT_PROTOCOL] {
            let all = some_family(socket.dump(overlay_entry::get_routes(family, protocol)))?;
            for route in all.iter().filter_map(read_route) {
                if route.protocol == BOOT_PROTOCOL {
                    foreign.push(route);
                } else if route.protocol == NETD_PROTOCOL && is_overlay_metric(route.metric) {
                    held.put(&OverlayEntry::Route(route));
                }
            }
        }
    }
    for device in devices {
        let mut requests = vec![neighbour::list(device.index)];
        if device.kind == "vxlan" {
            requests.push(overlay_entry::get_fdb(device.index));
        }
        for request in requests {
            for entry in neighbours(socket, &request, device.index)? {
                held.put(&entry);
            }
        }
    }
    Ok((held, foreign))
}

fn read_route(message: &Received) -> Option<HeldRoute> {
    overlay_entry::read_route(message.body())
}

fn neighbours(
    socket: &mut Socket,
    request: &RouteNetlinkMessage,
    index: u32,
) -> io::Result<Vec<OverlayEntry>> {
    let all = some_family(socket.dump(request.clone()))?;
    let read = |message: &Received| overlay_entry::read_neighbour(message.body());
    let here = |entry: &OverlayEntry| match entry {
        OverlayEntry::Neighbour { link, .. } | OverlayEntry::Fdb { link, .. } => *link == index,
        OverlayEntry::Route(_) => false,
    };
    Ok(all.iter().filter_map(read).filter(here).collect())
}
