//! The overlay's neighbours, forwarding entries and routes. Dumps of them come by the ten
//! thousand, so they are not decoded as a whole.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
        RouteProtocol, RouteScope, RouteType,
    },
};

use super::{
    address::family,
    attribute,
    route::{self, NETD_PROTOCOL},
};
use crate::overlay::objects::{Entry, KernelHop, unspecified};

/// `RTPROT_BOOT`: what `ip route` and flannel give their routes.
pub(crate) const BOOT_PROTOCOL: u8 = 3;
/// Lengths of `ndmsg` and `rtmsg`.
const NEIGHBOUR_HEADER: usize = 12;
const ROUTE_HEADER: usize = 12;
const INET: u8 = libc::AF_INET as u8;
const INET6: u8 = libc::AF_INET6 as u8;
const BRIDGE: u8 = libc::AF_BRIDGE as u8;

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

/// Makes an entry, in the place of what has its key.
pub(crate) fn set(entry: &Entry) -> RouteNetlinkMessage {
    match entry {
        Entry::Neighbour { .. } | Entry::Fdb { .. } => {
            RouteNetlinkMessage::NewNeighbour(neighbour(entry))
        }
        Entry::Route(held) => RouteNetlinkMessage::NewRoute(route(held)),
    }
}

/// Removes an entry.
pub(crate) fn remove(entry: &Entry) -> RouteNetlinkMessage {
    match entry {
        Entry::Neighbour { .. } | Entry::Fdb { .. } => {
            RouteNetlinkMessage::DelNeighbour(neighbour(entry))
        }
        Entry::Route(held) => {
            let mut message = route(held);
            // Any.
            message.header.scope = RouteScope::NoWhere;
            message.header.kind = RouteType::Unspec;
            message.attributes.retain(|a| !matches!(a, RouteAttribute::Metrics(_)));
            RouteNetlinkMessage::DelRoute(message)
        }
    }
}

fn neighbour(entry: &Entry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    let header = &mut message.header;
    header.state = NeighbourState::Permanent;
    header.kind = RouteType::Unicast;
    let (link, ip, mac) = match entry {
        Entry::Neighbour { link, ip, mac } => {
            header.family = family(*ip);
            (*link, *ip, *mac)
        }
        Entry::Fdb { link, mac, remote } => {
            header.family = AddressFamily::Bridge;
            header.flags = NeighbourFlags::Own;
            (*link, *remote, *mac)
        }
        Entry::Route(_) => return message,
    };
    header.ifindex = link;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(ip)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

fn route(held: &HeldRoute) -> RouteMessage {
    let to = held.destination;
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(to.addr());
    header.destination_prefix_length = to.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::from(held.protocol);
    header.kind = RouteType::Unicast;
    let attributes = &mut message.attributes;
    if to.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(RouteAddress::from(to.addr())));
    }
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
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = RouteProtocol::from(protocol);
    message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for the forwarding entries of the link `index` (as a dump).
pub(crate) fn get_fdb(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Reads a permanent neighbour, or a permanent forwarding entry of a device's own (not
/// of a bridge that the device is a port of).
pub(crate) fn read_neighbour(body: &[u8]) -> Option<Entry> {
    let header = Neighbour::read(body)?;
    header.permanent.then_some(header.entry?)
}

/// What a neighbour message is about.
pub(crate) struct Neighbour {
    pub permanent: bool,
    /// With the MAC all zero if the message has none (a neighbour that failed).
    pub entry: Option<Entry>,
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
                Some(Entry::Neighbour { link, ip, mac: mac.unwrap_or_default() })
            }
            (BRIDGE, Some(remote), Some(mac)) if flags & OWN != 0 => {
                Some(Entry::Fdb { link, mac, remote })
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

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldAddress {
    pub link: u32,
    pub net: IpNet,
    flags: u32,
}

impl HeldAddress {
    /// Not one of those that every link may have.
    pub(crate) fn is_global(&self) -> bool {
        match self.net.addr() {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
    }

    /// Global, and here to stay: not temporary, deprecated or being checked.
    pub(crate) fn is_lasting(&self) -> bool {
        /// `IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE`; of
        /// IPv4 the first one means something else.
        const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;
        self.is_global() && (self.net.addr().is_ipv4() || self.flags & PASSING == 0)
    }
}

/// Reads an address message.
pub(crate) fn read_address(body: &[u8]) -> Option<HeldAddress> {
    const HEADER: usize = 8;
    let &[_, prefix, flags, _] = body.first_chunk::<4>()?;
    let (mut local, mut any, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
        match kind {
            1 => any = attribute::ip(value),
            2 => local = attribute::ip(value),
            8 => flags = attribute::u32_at(value, 0)?,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(any)?, prefix).ok()?;
    Some(HeldAddress { link: attribute::u32_at(body, 4)?, net, flags })
}

/// Which way packets to a destination go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub destination: IpNet,
    pub metric: u32,
    pub protocol: u8,
    pub link: Option<u32>,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    /// Bytes; `None`: the link's.
    pub mtu: Option<u32>,
}

/// Asks which way packets to `ip` go; `entry`: for the table's entry that says so
/// instead of for what it comes to.
pub(crate) fn way_to(ip: IpAddr, entry: bool) -> RouteNetlinkMessage {
    match route::look_up(ip) {
        RouteNetlinkMessage::GetRoute(mut message) if entry => {
            message.header.flags |= RouteFlags::FibMatch;
            RouteNetlinkMessage::GetRoute(message)
        }
        message => message,
    }
}

/// Reads the answer to [`way_to`]; `None`: nowhere.
pub(crate) fn read_way(body: &[u8]) -> Option<Way> {
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    let &[family, prefix, _, _, _, protocol, _, kind] = body.first_chunk::<8>()?;
    if !matches!(kind, UNICAST | LOCAL) {
        return None;
    }
    let mut to = unspecified(family == INET);
    let (mut metric, mut link, mut gateway, mut source, mut mtu) = (0, None, None, None, None);
    for (kind, value) in attribute::each(body.get(ROUTE_HEADER..)?) {
        match kind {
            1 => to = attribute::ip(value)?,
            4 => link = attribute::u32_at(value, 0),
            5 => gateway = attribute::ip(value),
            6 => metric = attribute::u32_at(value, 0)?,
            7 => source = attribute::ip(value),
            8 => mtu = attribute::find(value, 2).and_then(|mtu| attribute::u32_at(mtu, 0)),
            _ => {}
        }
    }
    let destination = IpNet::new(to, prefix).ok()?;
    Some(Way { destination, metric, protocol, link, gateway, source, mtu })
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
            for entry in
                [Entry::Neighbour { link: 9, ip, mac }, Entry::Fdb { link: 9, mac, remote: ip }]
            {
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
                assert_eq!(read_route(&said(set(&Entry::Route(route)))), Some(route));
            }
        }
    }

    #[test]
    fn a_default_route_is_read_and_junk_is_not() {
        let default: IpNet = "::/0".parse().unwrap();
        let route = HeldRoute::ours(default, 0, KernelHop::Link(3), None);
        assert_eq!(read_route(&said(set(&Entry::Route(route)))), Some(route));
        for length in 0..60 {
            let junk = vec![0xff; length];
            assert_eq!(read_route(&junk), None);
            assert_eq!(read_neighbour(&junk), None);
            assert_eq!(read_way(&junk), None);
            assert!(read_address(&junk).is_none_or(|a| a.net.prefix_len() <= 128));
        }
    }

    #[test]
    fn of_ipv6_addresses_only_lasting_ones_count() {
        let address = |family: u8, flags: u32, ip: IpAddr| {
            let bytes = match ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let mut body = vec![family, 24, 0, 0, 3, 0, 0, 0, 8, 0, 8, 0];
            body.extend_from_slice(&flags.to_ne_bytes());
            body.extend_from_slice(&(bytes.len() as u16 + 4).to_ne_bytes());
            body.extend_from_slice(&[1, 0]);
            body.extend_from_slice(&bytes);
            read_address(&body).unwrap()
        };
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert!(address(INET, 0x81, v4).is_lasting(), "secondary");
        assert!(address(INET6, 0x80, v6).is_lasting());
        for passing in [0x01, 0x08, 0x20, 0x40] {
            let address = address(INET6, passing, v6);
            assert!(address.is_global() && !address.is_lasting(), "{passing}");
        }
        assert!(!address(INET6, 0, "fe80::1".parse().unwrap()).is_global());
    }
}
