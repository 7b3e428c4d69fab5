//! Routes of pods, and questions about routes.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

use super::address::family;
use netd_domain::Route;

/// Marks netd's own routes (`ip route` shows `proto 110`).
pub(crate) const NETD_PROTOCOL: u8 = 110;

/// Asks which way packets to `ip` would take.
pub(crate) fn look_up(ip: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader { kind: RouteType::Unspec, ..RouteHeader::default() };
    message.header.address_family = family(ip);
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(ip))];
    RouteNetlinkMessage::GetRoute(message)
}

/// Whether the answer to [`look_up`] is "here".
pub(crate) fn is_local(answer: &RouteNetlinkMessage) -> bool {
    matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
}

/// A route out of the link `index`.
pub(crate) fn add(index: u32, route: &Route) -> RouteNetlinkMessage {
    let destination = route.destination.trunc();
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(destination.addr());
    header.destination_prefix_length = destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Other(NETD_PROTOCOL);
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

/// Asks for the main table's routes of a family (as a dump), out of one link if given.
pub(crate) fn list(family: AddressFamily, oif: Option<u32>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    RouteNetlinkMessage::GetRoute(message)
}

/// Reads a unicast route back, with the index of its link.
pub(crate) fn read(message: &RouteMessage) -> Option<(u32, Route)> {
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
