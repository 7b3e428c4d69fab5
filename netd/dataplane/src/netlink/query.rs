//! Reads what the kernel holds.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecInet6, AfSpecUnspec, BridgeStpState, In6AddrGenMode, InfoBridge,
        InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags, LinkInfo,
        LinkMessage,
    },
    nsid::{NsidAttribute, NsidMessage},
};

use super::{
    Batch, Received, Socket, address,
    link::{self, LinkId},
    link_group::is_detached,
    neighbour, route, tc,
};
use crate::endpoint::observed::{ActualLimits, ActualLink};
use netd_domain::{Mac, Route};

/// The link, or `None` when there is none.
pub(crate) fn link(socket: &mut Socket, which: LinkId<'_>) -> io::Result<Option<ActualLink>> {
    link_as(socket, which, read_link)
}

/// As [`link`], but `read` takes from the answer what the caller wants to know.
pub(crate) fn link_as<T>(
    socket: &mut Socket,
    which: LinkId<'_>,
    read: impl FnMut(&Received) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut batch = Batch::new();
    batch.route(link::get(which), 0);
    let (results, messages) = socket.exchange(batch)?;
    match results.into_iter().next() {
        Some(Err(refusal)) if refusal.errno == libc::ENODEV => Ok(None),
        Some(Err(refusal)) => Err(io::Error::from_raw_os_error(refusal.errno)),
        _ => Ok(messages.iter().find_map(read)),
    }
}

/// Reads an `RTM_NEWLINK`.
pub(crate) fn read_link(message: &Received) -> Option<ActualLink> {
    match message.route()? {
        RouteNetlinkMessage::NewLink(message) => Some(from_message(&message)),
        _ => None,
    }
}

/// The veth with this MAC, whatever its name, that is not about to be removed.
pub(crate) fn veth_with_mac(socket: &mut Socket, mac: Mac) -> io::Result<Option<ActualLink>> {
    let all = socket.dump(link::get_all(Some(InfoKind::Veth)))?;
    let mut links = all.iter().filter_map(read_link);
    Ok(links.find(|link| link.mac == Some(mac) && !is_detached(link.group)))
}

fn from_message(message: &LinkMessage) -> ActualLink {
    let mut link = ActualLink {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        // Without an IPv6 part the kernel makes no address either.
        no_autoconf: true,
        ..ActualLink::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = link::read_mac(bytes),
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.peer_netns = Some(*id),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::LinkInfo(info) => read_info(info, &mut link),
            LinkAttribute::AfSpecUnspec(parts) => {
                link.no_autoconf = !autoconf(parts);
                link.forwarding = parts.iter().any(forwards);
                link.ipv6 = parts.iter().any(|part| matches!(part, AfSpecUnspec::Inet6(_)));
            }
            _ => {}
        }
    }
    link
}

fn read_info(info: &[LinkInfo], link: &mut ActualLink) {
    for part in info {
        match part {
            LinkInfo::Kind(kind) => link.kind = kind.to_string(),
            LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
                link.hairpin = port.contains(&InfoBridgePort::HairpinMode(true));
            }
            LinkInfo::Data(InfoData::Bridge(settings)) => {
                link.stp = settings.iter().any(|setting| {
                    matches!(setting, InfoBridge::StpState(s) if *s != BridgeStpState::Disabled)
                });
            }
            _ => {}
        }
    }
}

fn forwards(part: &AfSpecUnspec) -> bool {
    let on = |inet: &AfSpecInet| matches!(inet, AfSpecInet::DevConf(conf) if conf.forwarding != 0);
    matches!(part, AfSpecUnspec::Inet(parts) if parts.iter().any(on))
}

fn autoconf(parts: &[AfSpecUnspec]) -> bool {
    let mut modes = parts.iter().filter_map(|part| match part {
        AfSpecUnspec::Inet6(inet6) => inet6.iter().find_map(|a| match a {
            AfSpecInet6::AddrGenMode(mode) => Some(*mode),
            _ => None,
        }),
        _ => None,
    });
    modes.any(|mode| mode != In6AddrGenMode::None)
}

/// The addresses of a link.
pub(crate) fn addresses(socket: &mut Socket, index: u32) -> io::Result<Vec<IpNet>> {
    let all = some_family(socket.dump(address::list(index)))?;
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewAddress(m) if m.header.index == index => address::read(&m),
        _ => None,
    };
    Ok(all.iter().filter_map(read).collect())
}

/// The link `index` of the namespace that has the id `netns` here; `None`: there is none, or
/// the namespace is gone.
pub(crate) fn link_in(
    socket: &mut Socket,
    netns: i32,
    index: u32,
) -> io::Result<Option<ActualLink>> {
    let mut batch = Batch::new();
    batch.route(link::get_in(netns, index), 0);
    let (results, messages) = socket.exchange(batch)?;
    match results.into_iter().next() {
        Some(Err(refusal)) if matches!(refusal.errno, libc::ENODEV | libc::EINVAL) => Ok(None),
        Some(Err(refusal)) => Err(io::Error::from_raw_os_error(refusal.errno)),
        _ => Ok(messages.iter().find_map(read_link)),
    }
}

/// The addresses of that link; none if the namespace is gone.
pub(crate) fn addresses_in(socket: &mut Socket, netns: i32, index: u32) -> io::Result<Vec<IpAddr>> {
    let all = match some_family(socket.dump(address::list_in(netns, index))) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(Vec::new()),
        other => other?,
    };
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewAddress(m) if m.header.index == index => address::read(&m),
        _ => None,
    };
    Ok(all.iter().filter_map(read).map(|net| net.addr()).collect())
}

/// The MACs that a bridge has learnt on a port.
pub(crate) fn learnt_on(socket: &mut Socket, port: u32) -> io::Result<Vec<Mac>> {
    let all = some_family(socket.dump(neighbour::forwarding_entries(port)))?;
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewNeighbour(m) => neighbour::read_learnt(&m),
        _ => None,
    };
    Ok(all.iter().filter_map(read).collect())
}

/// The neighbours on a link that have answered.
pub(crate) fn living_neighbours(socket: &mut Socket, index: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
    let all = some_family(socket.dump(neighbour::list(index)))?;
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewNeighbour(m) => neighbour::read_living(&m),
        _ => None,
    };
    let ours = all.iter().filter_map(read).filter(|(on, ..)| *on == index);
    Ok(ours.map(|(_, ip, mac)| (ip, mac)).collect())
}

/// The unicast routes of the main table that lead out of a link.
pub(crate) fn routes(socket: &mut Socket, index: u32) -> io::Result<Vec<Route>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let all = some_family(socket.dump(route::list(family, Some(index))))?;
        found.extend(all.iter().filter_map(read_route).filter(|(oif, _)| *oif == index));
    }
    Ok(found.into_iter().map(|(_, route)| route).collect())
}

/// Reads an `RTM_NEWROUTE`.
pub(crate) fn read_route(message: &Received) -> Option<(u32, Route)> {
    match message.route()? {
        RouteNetlinkMessage::NewRoute(m) => route::read(&m),
        _ => None,
    }
}

/// A kernel without IPv6 has none of its objects.
pub(crate) fn some_family(all: io::Result<Vec<Received>>) -> io::Result<Vec<Received>> {
    match all {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {
            Ok(Vec::new())
        }
        // A filter by a link that has just gone.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(Vec::new()),
        other => other,
    }
}

/// The permanent neighbours on a link.
pub(crate) fn neighbours(socket: &mut Socket, index: u32) -> io::Result<Vec<(IpAddr, Mac)>> {
    let all = some_family(socket.dump(neighbour::list(index)))?;
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewNeighbour(m) => neighbour::read(&m),
        _ => None,
    };
    let ours = all.iter().filter_map(read).filter(|(on, ..)| *on == index);
    Ok(ours.map(|(_, ip, mac)| (ip, mac)).collect())
}

/// The bandwidth limits around the host's end `index` and the device named `ifb`.
pub(crate) fn limits(
    socket: &mut Socket,
    index: Option<u32>,
    ifb: &str,
) -> io::Result<ActualLimits> {
    let ifb = link(socket, LinkId::Name(ifb))?.filter(|link| link.kind == "ifb");
    let mut limits =
        ActualLimits { ifb: ifb.as_ref().map(|l| (l.index, l.up)), ..ActualLimits::default() };
    if let Some(ifb) = ifb {
        limits.from_pod = queue(socket, |b| tc::get_root(b, ifb.index), tc::read_limit)?;
    }
    if let Some(index) = index {
        limits.to_pod = queue(socket, |b| tc::get_root(b, index), tc::read_limit)?;
        let hook = |m: &Received| tc::read_hook(m).then_some(());
        limits.hook = queue(socket, |b| tc::get_hook(b, index), hook)?.is_some();
    }
    if let (true, Some(index)) = (limits.hook, index) {
        let (kind, body) = tc::get_filters(index);
        limits.redirect = socket.dump_raw(kind, &body)?.iter().find_map(tc::read_redirect);
    }
    Ok(limits)
}

fn queue<T>(
    socket: &mut Socket,
    ask: impl FnOnce(&mut Batch),
    read: impl Fn(&Received) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut batch = Batch::new();
    ask(&mut batch);
    // A refusal means that there is none.
    let (_, messages) = socket.exchange(batch)?;
    Ok(messages.iter().find_map(read))
}

/// The id that the socket's namespace has for the one behind `fd`; `None`: none yet.
pub(crate) fn netns_id(socket: &mut Socket, fd: impl AsFd) -> io::Result<Option<i32>> {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(fd.as_fd().as_raw_fd() as u32));
    let mut batch = Batch::new();
    batch.route(RouteNetlinkMessage::GetNsId(message), 0);
    let (_, messages) = socket.exchange(batch)?;
    let read = |message: &Received| match message.route()? {
        RouteNetlinkMessage::NewNsId(m) => m.attributes.iter().find_map(|a| match a {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }),
        _ => None,
    };
    Ok(messages.iter().find_map(read))
}
