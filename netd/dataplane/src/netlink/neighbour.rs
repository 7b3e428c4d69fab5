//! Neighbours: which MAC an address has on a link.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage,
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

/// Reads a permanent neighbour back, with the index of its link.
pub(crate) fn read(message: &NeighbourMessage) -> Option<(u32, IpAddr, Mac)> {
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
