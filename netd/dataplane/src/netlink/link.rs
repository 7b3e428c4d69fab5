//! Links.

use std::os::fd::RawFd;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge, InfoBridgePort,
        InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkExtentMask,
        LinkFlags, LinkInfo, LinkMessage,
    },
    nsid::{NsidAttribute, NsidMessage},
};

use crate::endpoint::op::LinkChange;
use netd_domain::{BridgeWiring, IfName, Mac, Wiring};

/// Which link a request is about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LinkId<'a> {
    /// By interface index.
    Index(u32),
    /// By name.
    Name(&'a str),
}

impl LinkId<'_> {
    fn message(self) -> LinkMessage {
        let mut message = LinkMessage::default();
        match self {
            Self::Index(index) => message.header.index = index,
            Self::Name(name) => message.attributes.push(LinkAttribute::IfName(name.into())),
        }
        message
    }
}

/// A veth pair: the host's end up and on the bridge `master`, the other one in the
/// namespace `netns`, still down (up in here is refused with ENOTCONN). One queue each:
/// a queue a processor costs 200 us.
pub(crate) fn veth(wiring: &Wiring, netns: RawFd, master: Option<u32>) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.attributes = end(&wiring.ifname, wiring.mac.bytes(), wiring.mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(netns));
    let mut message = up(LinkMessage::default());
    message.attributes = end(&wiring.host_ifname, wiring.host_mac.bytes(), wiring.mtu);
    message.attributes.extend(master.map(LinkAttribute::Controller));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// Gives the namespace `netns` an id in the host's, unless it has one.
pub(crate) fn netns_id(netns: RawFd, id: i32) -> RouteNetlinkMessage {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(netns.cast_unsigned()), NsidAttribute::Id(id)];
    RouteNetlinkMessage::NewNsId(message)
}

fn end(name: &IfName, mac: [u8; 6], mtu: u32) -> Vec<LinkAttribute> {
    vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::Mtu(mtu),
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
    ]
}

/// Changes an end of a pair; `mac` and `master` are used if the change says so.
pub(crate) fn change(
    which: LinkId<'_>,
    change: LinkChange,
    mac: [u8; 6],
    mtu: u32,
    master: Option<u32>,
) -> RouteNetlinkMessage {
    let mut message = which.message();
    if change.up {
        message = up(message);
    }
    let attributes = &mut message.attributes;
    if change.mac {
        attributes.push(LinkAttribute::Address(mac.to_vec()));
    }
    if change.mtu {
        attributes.push(LinkAttribute::Mtu(mtu));
    }
    if change.master {
        attributes.extend(master.map(LinkAttribute::Controller));
    }
    if change.no_autoconf {
        attributes.push(no_autoconf());
    }
    if change.hairpin {
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
        ]));
    }
    // SETLINK ignores what belongs to the bridge port.
    RouteNetlinkMessage::NewLink(message)
}

fn no_autoconf() -> LinkAttribute {
    let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
}

fn up(mut message: LinkMessage) -> LinkMessage {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
    message
}

/// Brings a link up.
pub(crate) fn set_up(which: LinkId<'_>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::SetLink(up(which.message()))
}

/// Takes a link down and puts it in `group`.
pub(crate) fn detach(which: LinkId<'_>, group: u32) -> RouteNetlinkMessage {
    let mut message = which.message();
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Group(group));
    RouteNetlinkMessage::SetLink(message)
}

/// Removes one link.
pub(crate) fn delete(which: LinkId<'_>) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelLink(which.message())
}

/// Removes every link of a group at once.
pub(crate) fn delete_group(group: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    RouteNetlinkMessage::DelLink(message)
}

/// Asks for one link, without its statistics.
pub(crate) fn get(which: LinkId<'_>) -> RouteNetlinkMessage {
    let mut message = which.message();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for every link (as a dump), of one kind if given.
pub(crate) fn get_all(kind: Option<InfoKind>) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let kind = kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    message.attributes.extend(kind);
    RouteNetlinkMessage::GetLink(message)
}

/// A bridge as ours are: fixed MAC, no STP, no snooping (without a querier it cuts
/// off neighbour discovery), up.
pub(crate) fn bridge(wiring: &BridgeWiring, mtu: u32) -> RouteNetlinkMessage {
    let mut message = up(LinkId::Name(wiring.name.as_str()).message());
    message.attributes.push(LinkAttribute::Address(wiring.mac.bytes().to_vec()));
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ])),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

/// The device that limits what a pod sends.
pub(crate) fn ifb(name: &IfName, mtu: u32) -> RouteNetlinkMessage {
    let mut message = up(LinkId::Name(name.as_str()).message());
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message.attributes.push(LinkAttribute::NumTxQueues(1));
    message.attributes.push(LinkAttribute::NumRxQueues(1));
    message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Ifb)]));
    RouteNetlinkMessage::NewLink(message)
}

/// An Ethernet address, if it is one that an interface can have.
pub(crate) fn read_mac(bytes: &[u8]) -> Option<Mac> {
    let [a, b, c, d, e, f]: [u8; 6] = bytes.try_into().ok()?;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}").parse().ok()
}
