//! Routes of pods, and questions about routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
        RouteScope, RouteType,
    },
};
use rtnetlink::RouteMessageBuilder;

use super::{address::unspecified, attribute, missing};
use netd_domain::Route;

/// Length of `rtmsg`.
const HEADER: usize = 12;
/// Marks netd's own routes (`ip route` shows `proto 110`).
pub(crate) const NETD_PROTOCOL: u8 = 110;

/// A route of the main table that `protocol` makes.
pub(super) fn to(destination: IpNet, protocol: u8) -> RouteMessage {
    let protocol = RouteProtocol::from(protocol);
    let mut message = match destination {
        IpNet::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .protocol(protocol)
            .destination_prefix(v4.addr(), v4.prefix_len())
            .build(),
        IpNet::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .protocol(protocol)
            .destination_prefix(v6.addr(), v6.prefix_len())
            .build(),
    };
    if destination.prefix_len() == 0 {
        // Default routes have no destination.
        message.attributes.clear();
    }
    message
}

/// Asks which way packets to `ip` would take.
pub(crate) fn look_up(ip: IpAddr) -> RouteNetlinkMessage {
    // A question has none of what a route's header says, or the kernel refuses it.
    let mut message = to(IpNet::from(ip), 0);
    message.header.table = RouteHeader::RT_TABLE_UNSPEC;
    message.header.kind = RouteType::Unspec;
    RouteNetlinkMessage::GetRoute(message)
}

/// Whether the answer to [`look_up`] is "here".
pub(crate) fn is_local(answer: &RouteNetlinkMessage) -> bool {
    matches!(answer, RouteNetlinkMessage::NewRoute(route) if route.header.kind == RouteType::Local)
}

/// A route out of the link `index`.
pub(crate) fn add(index: u32, route: &Route) -> RouteNetlinkMessage {
    let destination = route.destination.trunc();
    let mut message = to(destination, NETD_PROTOCOL);
    if route.gateway.is_none() && destination.addr().is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    if let Some(via) = route.gateway {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

/// Asks for the main table's routes of a family (as a dump), out of one link if given.
pub(crate) fn list(family: AddressFamily, oif: Option<u32>) -> RouteNetlinkMessage {
    let mut message = missing::routes_of(family);
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
    let any = unspecified(header.address_family == AddressFamily::Inet);
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

/// Which way packets to a destination go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteAnswer {
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
pub(crate) fn look_up_entry(ip: IpAddr, entry: bool) -> RouteNetlinkMessage {
    match look_up(ip) {
        RouteNetlinkMessage::GetRoute(mut message) if entry => {
            message.header.flags |= RouteFlags::FibMatch;
            RouteNetlinkMessage::GetRoute(message)
        }
        message => message,
    }
}

/// Asks for the table's entry by which packets from `from` to `ip` go, out of the link `oif` if
/// given; it is refused if there is none.
pub(crate) fn look_up_from(ip: IpAddr, from: IpAddr, oif: Option<u32>) -> RouteNetlinkMessage {
    let RouteNetlinkMessage::GetRoute(mut message) = look_up_entry(ip, true) else {
        return look_up(ip);
    };
    message.header.source_prefix_length = IpNet::from(from).prefix_len();
    message.attributes.push(RouteAttribute::Source(RouteAddress::from(from)));
    message.attributes.extend(oif.map(RouteAttribute::Oif));
    RouteNetlinkMessage::GetRoute(message)
}

/// Reads the answer to [`look_up_entry`]; `None`: nowhere.
pub(crate) fn read_answer(body: &[u8]) -> Option<RouteAnswer> {
    const UNICAST: u8 = 1;
    const LOCAL: u8 = 2;
    let &[family, prefix, _, _, _, protocol, _, kind] = body.first_chunk::<8>()?;
    if !matches!(kind, UNICAST | LOCAL) {
        return None;
    }
    let mut to = unspecified(family == libc::AF_INET as u8);
    let (mut metric, mut link, mut gateway, mut source, mut mtu) = (0, None, None, None, None);
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
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
    Some(RouteAnswer { destination, metric, protocol, link, gateway, source, mtu })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn junk_is_no_answer() {
        for length in 0..60 {
            assert_eq!(read_answer(&vec![0xff; length]), None);
        }
    }
}
