//! Neighbours: which MAC an address has on a link.

use std::net::IpAddr;

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::{address::family, link::read_mac, missing};
use netd_domain::Mac;

/// A permanent neighbour on the link `index`.
pub(crate) fn add(index: u32, ip: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let message = missing::permanent_neighbour(family(ip), index, ip, mac.bytes());
    RouteNetlinkMessage::NewNeighbour(message)
}

/// Asks for the neighbours of the link `index` (as a dump).
pub(crate) fn list(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(missing::neighbours_of(index))
}

/// Asks for the forwarding entries of a bridge's port (as a dump).
pub(crate) fn forwarding_entries(port: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(missing::forwarding_entries_of(port))
}

/// Reads the MAC of a forwarding entry that a bridge has learnt.
pub(crate) fn read_learnt(message: &NeighbourMessage) -> Option<Mac> {
    // Permanent ones are of the port itself.
    let learnt = message.header.family == AddressFamily::Bridge
        && message.header.state != NeighbourState::Permanent;
    message.attributes.iter().filter(|_| learnt).find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => read_mac(bytes),
        _ => None,
    })
}

/// Reads a permanent neighbour back, with the index of its link.
pub(crate) fn read(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    if message.header.state != NeighbourState::Permanent {
        return None;
    }
    read_entry(message)
}

/// Reads a neighbour that has answered, as far as the kernel knows.
pub(crate) fn read_living(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
    use NeighbourState::{Failed, Incomplete, None as Unknown};
    match message.header.state {
        Failed | Incomplete | Unknown => None,
        _ => read_entry(message),
    }
}

fn read_entry(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
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
