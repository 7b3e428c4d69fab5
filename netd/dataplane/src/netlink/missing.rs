//! What rtnetlink's builders can't say (0.24). Everything else is built with them.

use std::{net::IpAddr, os::fd::RawFd, sync::LazyLock};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::{
    AddressFamily,
    address::AddressMessage,
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InetDevConf, LinkAttribute,
        LinkExtentMask,
    },
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
    nsid::{NsidAttribute, NsidMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::LinkMessageBuilder;

use crate::{sysctl::kernel_release, version::version_numbers};

/// One queue in each direction. The builder has no method for queues.
pub(super) fn one_queue<T>(builder: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
    builder
        .append_extra_attribute(LinkAttribute::NumTxQueues(1))
        .append_extra_attribute(LinkAttribute::NumRxQueues(1))
}

/// No IPv6 address of the kernel's own making; forwarding of IPv4 packets that come in. The builder
/// has no method for either.
pub(super) fn family_settings(no_autoconf: bool, forwarding: bool) -> LinkAttribute {
    let mut families = Vec::new();
    if forwarding {
        let mut conf = InetDevConf::default();
        conf.forwarding = 1;
        families.push(AfSpecUnspec::Inet(vec![AfSpecInet::DevConfRequest(conf)]));
    }
    if no_autoconf {
        let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        families.push(AfSpecUnspec::Inet6(vec![none]));
    }
    LinkAttribute::AfSpecUnspec(families)
}

/// Leaves the counters out of an answer. The builder has no method for it.
///
/// Linux 5.10 then leaves out too how IPv6 addresses are made, which would look as if none were;
/// older kernels than those that were tried send all.
pub(super) fn without_statistics() -> LinkAttribute {
    static ONLY_STATISTICS: LazyLock<bool> = LazyLock::new(|| {
        kernel_release().is_ok_and(|release| version_numbers(&release) >= [6, 1, 0])
    });
    let mask = if *ONLY_STATISTICS { vec![LinkExtentMask::SkipStats] } else { vec![] };
    LinkAttribute::ExtMask(mask)
}

/// The request is about the namespace that has this id in the socket's
/// (`IFLA_TARGET_NETNSID`). The crate does not know it.
pub(super) fn of_namespace(id: i32) -> LinkAttribute {
    const IFLA_TARGET_NETNSID: u16 = 46;
    LinkAttribute::Other(DefaultNla::new(IFLA_TARGET_NETNSID, id.to_ne_bytes().to_vec()))
}

/// An id for the namespace behind `netns`. The only builder needs rtnetlink's connection.
pub(super) fn namespace_id(netns: RawFd, id: i32) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(netns.cast_unsigned()), NsidAttribute::Id(id)];
    message
}

/// The addresses of one link. The builder wants a family.
pub(super) fn addresses_of(index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message
}

/// A permanent neighbour. The only builder needs rtnetlink's connection.
pub(super) fn permanent_neighbour(
    family: AddressFamily,
    index: u32,
    ip: IpAddr,
    mac: [u8; 6],
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(ip)),
        NeighbourAttribute::LinkLayerAddress(mac.to_vec()),
    ];
    message
}

/// A forwarding entry of a vxlan device's own. The only builder needs rtnetlink's connection.
pub(super) fn forwarding_entry(index: u32, mac: [u8; 6], remote: IpAddr) -> NeighbourMessage {
    let mut message = permanent_neighbour(AddressFamily::Bridge, index, remote, mac);
    message.header.flags = NeighbourFlags::Own;
    message
}

/// The neighbours of one link. The only builder needs rtnetlink's connection.
pub(super) fn neighbours_of(index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(index));
    message
}

/// The forwarding entries of one link. The only builder needs rtnetlink's connection.
pub(super) fn forwarding_entries_of(index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message
}

/// The main table's routes of a family. The builder puts a table into the header and asks
/// for static unicast routes.
pub(super) fn routes_of(family: AddressFamily) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.attributes.push(RouteAttribute::Table(u32::from(RouteHeader::RT_TABLE_MAIN)));
    message
}

/// As [`routes_of`], only those that `protocol` made.
pub(super) fn routes_made_by(family: AddressFamily, protocol: u8) -> RouteMessage {
    let mut message = routes_of(family);
    message.header.protocol = RouteProtocol::from(protocol);
    message
}
