//! The overlay's neighbours, forwarding entries and routes. Dumps of them come by the ten
//! thousand, so they are not decoded as a whole.

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::NeighbourMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteScope, RouteType,
    },
};

use super::{
    address::{family, unspecified},
    attribute,
    entry::{HeldRoute, KernelHop, OverlayEntry},
    missing, route,
};

/// Lengths of `ndmsg` and `rtmsg`.
const NEIGHBOUR_HEADER: usize = 12;
const ROUTE_HEADER: usize = 12;
const INET: u8 = libc::AF_INET as u8;
const INET6: u8 = libc::AF_INET6 as u8;
const BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// Makes an entry, in the place of what has its key.
pub(crate) fn set(entry: &OverlayEntry) -> RouteNetlinkMessage {
    match entry {
        OverlayEntry::Neighbour { .. } | OverlayEntry::Fdb { .. } => {
            RouteNetlinkMessage::NewNeighbour(neighbour(entry))
        }
        OverlayEntry::Route(held) => RouteNetlinkMessage::NewRoute(route(held)),
    }
}

/// Removes an entry.
pub(crate) fn remove(entry: &OverlayEntry) -> RouteNetlinkMessage {
    match entry {
        OverlayEntry::Neighbour { .. } | OverlayEntry::Fdb { .. } => {
            RouteNetlinkMessage::DelNeighbour(neighbour(entry))
        }
        OverlayEntry::Route(held) => {
            let mut message = route(held);
            // Any.
            message.header.scope = RouteScope::NoWhere;
            message.header.kind = RouteType::Unspec;
            message.attributes.retain(|a| !matches!(a, RouteAttribute::Metrics(_)));
            RouteNetlinkMessage::DelRoute(message)
        }
    }
}

fn neighbour(entry: &OverlayEntry) -> NeighbourMessage {
    match *entry {
        OverlayEntry::Neighbour { link, ip, mac } => {
            missing::permanent_neighbour(family(ip), link, ip, mac)
        }
        OverlayEntry::Fdb { link, mac, remote } => missing::forwarding_entry(link, mac, remote),
        OverlayEntry::Route(_) => NeighbourMessage::default(),
    }
}

fn route(held: &HeldRoute) -> RouteMessage {
    let to = held.destination;
    let mut message = route::to(to, held.protocol);
    let header = &mut message.header;
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Priority(held.metric));
    match held.hop {
        KernelHop::Nowhere => header.kind = RouteType::BlackHole,
        KernelHop::Link(link) => {
            if to.addr().is_ipv4() {
                header.scope = RouteScope::Link;
            }
            attributes.push(RouteAttribute::Oif(link));
        }
        KernelHop::Via { gateway, link, onlink } => {
            if onlink {
                header.flags |= RouteFlags::Onlink;
            }
            attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
            attributes.push(RouteAttribute::Oif(link));
        }
        KernelHop::Other => {}
    }
    attributes.extend(held.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

/// Asks for the main table's routes that `protocol` made (as a dump).
pub(crate) fn get_routes(family: AddressFamily, protocol: u8) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetRoute(missing::routes_made_by(family, protocol))
}

/// Asks for the forwarding entries of the link `index` (as a dump).
pub(crate) fn get_fdb(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(missing::forwarding_entries_of(index))
}

/// Reads a permanent neighbour, or a permanent forwarding entry of a device's own (not
/// of a bridge that the device is a port of).
pub(crate) fn read_neighbour(body: &[u8]) -> Option<OverlayEntry> {
    let header = Neighbour::read(body)?;
    header.permanent.then_some(header.entry?)
}

/// What a neighbour message is about.
pub(crate) struct Neighbour {
    pub permanent: bool,
    /// With the MAC all zero if the message has none (a neighbour that failed).
    pub entry: Option<OverlayEntry>,
}

impl Neighbour {
    pub(crate) fn read(body: &[u8]) -> Option<Self> {
        const PERMANENT: u16 = 0x80;
        const OWN: u8 = 0x02;
        let &[kind, _, _, _, a, b, c, d, e, f, flags, _] =
            body.first_chunk::<NEIGHBOUR_HEADER>()?;
        let link = u32::from_ne_bytes([a, b, c, d]);
        let (mut ip, mut mac) = (None, None);
        for (kind, value) in attribute::each(body.get(NEIGHBOUR_HEADER..)?) {
            match kind {
                1 => ip = attribute::ip(value),
                2 => mac = value.try_into().ok(),
                _ => {}
            }
        }
        let entry = match (kind, ip, mac) {
            (INET | INET6, Some(ip), mac) => {
                Some(OverlayEntry::Neighbour { link, ip, mac: mac.unwrap_or_default() })
            }
            (BRIDGE, Some(remote), Some(mac)) if flags & OWN != 0 => {
                Some(OverlayEntry::Fdb { link, mac, remote })
            }
            _ => None,
        };
        Some(Self { permanent: u16::from_ne_bytes([e, f]) & PERMANENT != 0, entry })
    }
}

/// Reads a route of the main table that leads somewhere, or is a blackhole.
pub(crate) fn read_route(body: &[u8]) -> Option<HeldRoute> {
    const UNICAST: u8 = 1;
    const BLACKHOLE: u8 = 6;
    const ONLINK: u32 = 4;
    let &[family, prefix, _, _, table, protocol, _, kind] = body.first_chunk::<8>()?;
    let main = table == RouteHeader::RT_TABLE_MAIN && matches!(family, INET | INET6);
    if !main || !matches!(kind, UNICAST | BLACKHOLE) {
        return None;
    }
    let onlink = attribute::u32_at(body, 8)? & ONLINK != 0;
    let mut to = unspecified(family == INET);
    let (mut metric, mut link, mut gateway, mut mtu, mut several) = (0, None, None, None, false);
    for (kind, value) in attribute::each(body.get(ROUTE_HEADER..)?) {
        match kind {
            1 => to = attribute::ip(value)?,
            4 => link = attribute::u32_at(value, 0),
            5 => gateway = attribute::ip(value),
            6 => metric = attribute::u32_at(value, 0)?,
            8 => mtu = attribute::find(value, 2).and_then(|mtu| attribute::u32_at(mtu, 0)),
            // Several ways, or a way of another family.
            9 | 18 | 30 => several = true,
            _ => {}
        }
    }
    let hop = match (kind, link, gateway) {
        _ if several => KernelHop::Other,
        (BLACKHOLE, ..) => KernelHop::Nowhere,
        (_, Some(link), None) => KernelHop::Link(link),
        (_, Some(link), Some(gateway)) => KernelHop::Via { gateway, link, onlink },
        _ => KernelHop::Other,
    };
    let destination = IpNet::new(to, prefix).ok()?;
    Some(HeldRoute { destination, metric, protocol, hop, mtu })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, cut};

    /// The message's body, as the kernel would send it back.
    fn said(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut batch = Batch::new();
        batch.route(message, 0);
        cut(batch.bytes(), None)[0].body().to_vec()
    }

    #[test]
    fn entries_are_said_as_they_are_read() {
        let v4 = "10.5.2.0".parse().unwrap();
        let v6 = "fd00:5:2::".parse().unwrap();
        let mac = [2, 0, 0, 0, 0, 2];
        for ip in [v4, v6] {
            for entry in [
                OverlayEntry::Neighbour { link: 9, ip, mac },
                OverlayEntry::Fdb { link: 9, mac, remote: ip },
            ] {
                assert_eq!(read_neighbour(&said(set(&entry))), Some(entry));
            }
            let hops = [
                KernelHop::Nowhere,
                KernelHop::Link(9),
                KernelHop::Via { gateway: ip, link: 9, onlink: false },
                KernelHop::Via { gateway: ip, link: 9, onlink: true },
            ];
            for (hop, mtu) in hops.into_iter().zip([None, Some(1400), None, Some(1300)]) {
                let route = HeldRoute::ours(IpNet::new(ip, 24).unwrap(), 7, hop, mtu);
                assert_eq!(read_route(&said(set(&OverlayEntry::Route(route)))), Some(route));
            }
        }
    }

    #[test]
    fn a_default_route_is_read_and_junk_is_not() {
        let default: IpNet = "::/0".parse().unwrap();
        let route = HeldRoute::ours(default, 0, KernelHop::Link(3), None);
        assert_eq!(read_route(&said(set(&OverlayEntry::Route(route)))), Some(route));
        for length in 0..60 {
            let junk = vec![0xff; length];
            assert_eq!(read_route(&junk), None);
            assert_eq!(read_neighbour(&junk), None);
        }
    }
}
