//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};

/// The family of an address.
pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Adds an address to the link `index`. IPv6 without DAD: usable at once.
pub(crate) fn add(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message(index, net))
}

/// Removes an address from the link `index`.
pub(crate) fn remove(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(message(index, net))
}

fn message(index: u32, net: IpNet) -> AddressMessage {
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

/// Asks for the addresses of the link `index` (as a dump).
pub(crate) fn list(index: u32) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetAddress(message)
}

/// Reads an address back.
pub(crate) fn read(message: &AddressMessage) -> Option<IpNet> {
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
