//! Links.

use std::os::fd::RawFd;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        BridgeStpState, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    },
};
use rtnetlink::{LinkBridge, LinkIfb, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{link_group::ENDPOINT_GROUP, missing};
use netd_domain::{BridgeWiring, IfName, Mac, Wiring};

/// Offset of the attributes in a link message.
pub(crate) const LINK_ATTRIBUTES: usize = 16;

/// Which link a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkId<'a> {
    /// By interface index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

impl LinkId<'_> {
    fn builder(self) -> LinkMessageBuilder<LinkUnspec> {
        match self {
            Self::Index(index) => LinkUnspec::new_with_index(index),
            Self::Name(name) => LinkUnspec::new_with_name(name),
        }
    }
}

/// A veth pair: the host's end up and on the bridge `master`, the other one in the
/// namespace `netns`, still down (up in here is refused with ENOTCONN). One queue each:
/// a queue a processor costs 200 us.
pub(crate) fn veth(wiring: &Wiring, netns: RawFd, master: Option<u32>) -> RouteNetlinkMessage {
    let peer = end(LinkMessageBuilder::<LinkUnspec>::new(), &wiring.ifname, wiring.mac, wiring.mtu);
    let peer = InfoData::Veth(InfoVeth::Peer(peer.setns_by_fd(netns).build()));
    let host = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
    let host = end(host, &wiring.host_ifname, wiring.host_mac, wiring.mtu).up();
    let mut host = host.link_group(ENDPOINT_GROUP);
    if let Some(bridge) = master {
        host = host.controller(bridge);
    }
    RouteNetlinkMessage::NewLink(host.set_info_data(peer).build())
}

fn end<T>(
    builder: LinkMessageBuilder<T>,
    name: &IfName,
    mac: Mac,
    mtu: u32,
) -> LinkMessageBuilder<T> {
    missing::one_queue(builder.name(name.as_str()).address(mac.bytes().to_vec()).mtu(mtu))
}

/// Gives the namespace `netns` an id in the host's, unless it has one.
pub(crate) fn netns_id(netns: RawFd, id: i32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewNsId(missing::namespace_id(netns, id))
}

/// Settings of a link that change; what is `None` or `false` stays as it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LinkSettings {
    pub up: bool,
    /// Bytes.
    pub mtu: Option<u32>,
    pub mac: Option<Mac>,
    /// Interface index of the bridge; 0: of none.
    pub master: Option<u32>,
    /// Link group.
    pub group: Option<u32>,
    pub hairpin: bool,
    pub no_autoconf: bool,
    /// The host forwards IPv4 packets that come in by it.
    pub forwarding: bool,
}

/// Changes settings of a link.
pub(crate) fn change(which: LinkId<'_>, change: &LinkSettings) -> RouteNetlinkMessage {
    let mut builder = which.builder();
    if change.up {
        builder = builder.up();
    }
    if let Some(mac) = change.mac {
        builder = builder.address(mac.bytes().to_vec());
    }
    if let Some(mtu) = change.mtu {
        builder = builder.mtu(mtu);
    }
    if let Some(bridge) = change.master {
        builder = builder.controller(bridge);
    }
    if let Some(group) = change.group {
        builder = builder.link_group(group);
    }
    if change.no_autoconf || change.forwarding {
        let families = missing::family_settings(change.no_autoconf, change.forwarding);
        builder = builder.append_extra_attribute(families);
    }
    if change.hairpin {
        let hairpin = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
        builder = builder.set_port_kind(InfoPortKind::Bridge).set_port_data(hairpin);
    }
    // RTM_SETLINK ignores what belongs to the bridge port.
    RouteNetlinkMessage::NewLink(builder.build())
}

/// Brings a link up.
pub(crate) fn set_up(which: LinkId<'_>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(which.builder().up().build())
}

/// Takes a link down.
pub(crate) fn set_down(which: LinkId<'_>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(which.builder().down().build())
}

/// Gives a link another name; before Linux 6.2 it has to be down.
pub(crate) fn rename(index: u32, name: &IfName) -> RouteNetlinkMessage {
    let builder = LinkUnspec::new_with_index(index).name(name.as_str());
    RouteNetlinkMessage::SetLink(builder.build())
}

/// Takes a link down and puts it in `group`.
pub(crate) fn detach(which: LinkId<'_>, group: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(which.builder().down().link_group(group).build())
}

/// Removes one link.
pub(crate) fn delete(which: LinkId<'_>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(which.builder().build())
}

/// Removes every link of a group at once.
pub(crate) fn delete_group(group: u32) -> RouteNetlinkMessage {
    let message = LinkMessageBuilder::<LinkUnspec>::new().link_group(group).build();
    RouteNetlinkMessage::DelLink(message)
}

/// Asks for one link, without its statistics.
pub(crate) fn get(which: LinkId<'_>) -> RouteNetlinkMessage {
    let builder = which.builder().append_extra_attribute(missing::without_statistics());
    RouteNetlinkMessage::GetLink(builder.build())
}

/// Asks for the link `index` of the namespace that has the id `netns` in the socket's.
pub(crate) fn get_in(netns: i32, index: u32) -> RouteNetlinkMessage {
    let builder = LinkId::Index(index).builder();
    let builder = builder.append_extra_attribute(missing::of_namespace(netns));
    let builder = builder.append_extra_attribute(missing::without_statistics());
    RouteNetlinkMessage::GetLink(builder.build())
}

/// Asks for every link (as a dump), of one kind if given.
pub(crate) fn get_all(kind: Option<InfoKind>) -> RouteNetlinkMessage {
    let builder = match kind {
        Some(kind) => LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind),
        None => LinkMessageBuilder::<LinkUnspec>::new(),
    };
    let builder = builder.append_extra_attribute(missing::without_statistics());
    RouteNetlinkMessage::GetLink(builder.build())
}

/// A bridge as netd makes it: up, with a fixed MAC, without STP and without multicast
/// snooping (which, without a querier, cuts off neighbour discovery).
pub(crate) fn bridge(wiring: &BridgeWiring, mtu: u32) -> RouteNetlinkMessage {
    let builder = bridge_builder(wiring, mtu).address(wiring.mac.bytes().to_vec());
    RouteNetlinkMessage::NewLink(builder.build())
}

/// The same on a bridge that is there, but for its MAC: to set that costs its neighbours.
pub(crate) fn bridge_settings(wiring: &BridgeWiring, mtu: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewLink(bridge_builder(wiring, mtu).build())
}

/// Sets the MAC of a bridge that is there.
pub(crate) fn bridge_mac(wiring: &BridgeWiring) -> RouteNetlinkMessage {
    let builder = LinkBridge::new(wiring.name.as_str()).address(wiring.mac.bytes().to_vec());
    RouteNetlinkMessage::NewLink(builder.build())
}

fn bridge_builder(wiring: &BridgeWiring, mtu: u32) -> LinkMessageBuilder<LinkBridge> {
    LinkBridge::new(wiring.name.as_str())
        .mtu(mtu)
        .stp_state(BridgeStpState::Disabled)
        .mcast_snooping(false)
}

/// The device that limits what a pod sends.
pub(crate) fn ifb(name: &IfName, mtu: u32) -> RouteNetlinkMessage {
    let builder = missing::one_queue(LinkIfb::new(name.as_str()).up().mtu(mtu));
    RouteNetlinkMessage::NewLink(builder.build())
}

/// An Ethernet address, if it is one that an interface can have.
pub(crate) fn read_mac(bytes: &[u8]) -> Option<Mac> {
    let [a, b, c, d, e, f]: [u8; 6] = bytes.try_into().ok()?;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").parse().ok()
}
