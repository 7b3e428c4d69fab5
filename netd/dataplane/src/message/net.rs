//! Addresses, routes and neighbours.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use netd_domain::{Mac, Route};

/// Marks netd's own routes (`ip route` shows `proto 110`).
pub(crate) const PROTOCOL_NUMBER: u8 = 110;
const PROTOCOL: RouteProtocol = RouteProtocol::Other(PROTOCOL_NUMBER);

/// The family of an address.
pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Adds an address to the link `index`. IPv6 without DAD: usable at once.
pub(crate) fn add_address(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(address(index, net))
}

/// Removes an address from the link `index`.
pub(crate) fn remove_address(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(address(index, net))
}

fn address(index: u32, net: IpNet) -> AddressMessage {
    let ip = net.addr();
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match net {
        // A /31 or /32 has no broadcast address (RFC 3021).
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(v6) => {
            if v6.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

/// Asks which way packets to `ip` would take.
pub(crate) fn way_to(ip: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader { kind: RouteType::Unspec, ..RouteHeader::default() };
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(ip))];
    RouteNetlinkMessage::GetRoute(message)
}

/// Whether the answer to [`way_to`] is "here".
pub(crate) fn is_here(answer: &RouteNetlinkMessage) -> bool {
    matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
}

/// A route out of the link `index`.
pub(crate) fn route(index: u32, route: &Route) -> RouteNetlinkMessage {
    let destination = route.destination.trunc();
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(destination.addr());
    header.destination_prefix_length = destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = PROTOCOL;
    header.kind = RouteType::Unicast;
    if route.gateway.is_none() && destination.addr().is_ipv4() {
        header.scope = RouteScope::Link;
    }
    if destination.prefix_len() > 0 {
        message
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(destination.addr())));
    }
    if let Some(via) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

/// A permanent neighbour on the link `index`.
pub(crate) fn neighbour(index: u32, ip: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(ip)),
        NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Asks for the addresses of the link `index` (as a dump).
pub(crate) fn get_addresses(index: u32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetAddress(message)
}

/// Asks for the main table's routes of a family (as a dump), out of one link if given.
pub(crate) fn get_routes(family: AddressFamily, oif: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    RouteNetlinkMessage::GetRoute(message)
}

/// Asks for the neighbours of the link `index` (as a dump).
pub(crate) fn get_neighbours(index: u32) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// Reads an address back.
pub(crate) fn read_address(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    IpNet::new(local.or(any)?, message.header.prefix_len).ok()
}

/// Reads a unicast route back, with the index of its link.
pub(crate) fn read_route(message: &RouteMessage) -> Option<(u32, Route)> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let (mut oif, mut destination, mut gateway) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Destination(ip) => destination = read_ip(ip),
            RouteAttribute::Gateway(ip) => gateway = read_ip(ip),
            _ => {}
        }
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    let destination =
        IpNet::new(destination.unwrap_or(any), header.destination_prefix_length).ok()?;
    Some((oif?, Route { destination, gateway }))
}

fn read_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// Reads a permanent neighbour back, with the index of its link.
pub(crate) fn read_neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some((*v4).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some((*v6).into()),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = read_mac(bytes),
            _ => {}
        }
    }
    Some((message.header.ifindex, ip?, mac?))
}

/// An Ethernet address, if it is one that an interface can have.
pub(crate) fn read_mac(bytes: &[u8]) -> Option<Mac> {
    let [a, b, c, d, e, f]: [u8; 6] = bytes.try_into().ok()?;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").parse().ok()
}
