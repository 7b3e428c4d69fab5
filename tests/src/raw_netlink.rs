//! The least that the kernel takes for an endpoint: the yardstick of the benchmarks.
//!
//! No plan, no check, no threads, no undo, no firewall: one `sendmsg` on the host and one
//! in the sandbox. The caller chooses the interface indexes, so that nothing has to be
//! asked back. IPv4 only.

use std::{
    io,
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use ipnet::IpNet;
use netd_dataplane::{
    namespace,
    netlink::{Batch, Protocol, Refusal, Socket},
};
use netd_domain::{BridgeWiring, IfName, Mac, Route, Wiring, WiringDriver};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{
        BridgeStpState, InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
};

const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// `lo` has it in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Makes the wiring in the namespace `sandbox`; `index` is free on the host and in the
/// sandbox, `bridge` is the bridge's index.
///
/// # Errors
/// The first of the kernel's refusals.
pub fn attach(
    host: &mut Socket,
    sandbox: impl AsFd,
    wiring: &Wiring,
    index: u32,
    bridge: Option<u32>,
) -> io::Result<()> {
    let fd = sandbox.as_fd();
    let mut batch = Batch::new();
    batch.route(veth(wiring, fd.as_raw_fd(), index, bridge), NEW);
    let addresses: Vec<_> = wiring.addresses.iter().map(|a| a.address).collect();
    if wiring.driver == WiringDriver::Routed {
        for ip in addresses.iter().map(IpNet::addr) {
            let to_pod = Route { destination: ip.into(), gateway: None };
            batch.route(route(index, &to_pod), NEW);
            batch.route(neighbour(index, ip, wiring.mac), NEW);
        }
    }
    first_refusal(host.batch(batch)?)?;
    let mut pod = namespace::run_in(fd, || Socket::open(Protocol::Route))??;
    let mut batch = Batch::new();
    batch.route(up(index), 0);
    batch.route(up(LOOPBACK_INDEX), 0);
    for net in addresses {
        batch.route(address(index, net), NEW);
    }
    if wiring.driver == WiringDriver::Routed {
        let gateway = netd_domain::wiring::ROUTED_GATEWAY_V4;
        batch.route(neighbour(index, gateway, wiring.host_mac), NEW);
    }
    for towards in &wiring.routes {
        batch.route(route(index, towards), NEW);
    }
    first_refusal(pod.batch(batch)?)
}

/// Makes a bridge with the index `index`.
///
/// # Errors
/// The kernel's refusal.
pub fn bridge(host: &mut Socket, wiring: &BridgeWiring, mtu: u32, index: u32) -> io::Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up(&mut message);
    message.attributes = end(&wiring.name, wiring.mac, mtu);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![
            InfoBridge::StpState(BridgeStpState::Disabled),
            InfoBridge::MulticastSnooping(false),
        ])),
    ]));
    let mut batch = Batch::new();
    batch.route(RouteNetlinkMessage::NewLink(message), NEW);
    first_refusal(host.batch(batch)?)
}

fn veth(wiring: &Wiring, netns: RawFd, index: u32, bridge: Option<u32>) -> RouteNetlinkMessage {
    let mut peer = LinkMessage::default();
    peer.header.index = index;
    peer.attributes = end(&wiring.ifname, wiring.mac, wiring.mtu);
    peer.attributes.push(LinkAttribute::NetNsFd(netns));
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up(&mut message);
    message.attributes = end(&wiring.host_ifname, wiring.host_mac, wiring.mtu);
    message.attributes.extend(bridge.map(LinkAttribute::Controller));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    RouteNetlinkMessage::NewLink(message)
}

fn end(name: &IfName, mac: Mac, mtu: u32) -> Vec<LinkAttribute> {
    vec![
        LinkAttribute::IfName(name.to_string()),
        LinkAttribute::Address(mac.bytes().to_vec()),
        LinkAttribute::Mtu(mtu),
        // A queue for each processor costs 200 us.
        LinkAttribute::NumTxQueues(1),
        LinkAttribute::NumRxQueues(1),
    ]
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags |= LinkFlags::Up;
    message.header.change_mask |= LinkFlags::Up;
}

fn up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    set_up(&mut message);
    RouteNetlinkMessage::SetLink(message)
}

fn address(index: u32, net: IpNet) -> RouteNetlinkMessage {
    let ip = net.addr();
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    if let IpNet::V4(v4) = net
        && v4.prefix_len() < 31
    {
        message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
    }
    RouteNetlinkMessage::NewAddress(message)
}

fn route(index: u32, route: &Route) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = AddressFamily::Inet;
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = RouteProtocol::Static;
    header.kind = RouteType::Unicast;
    if route.gateway.is_none() {
        header.scope = RouteScope::Link;
    }
    let destination = RouteAttribute::Destination(RouteAddress::from(route.destination.addr()));
    let gateway = route.gateway.map(|via| RouteAttribute::Gateway(RouteAddress::from(via)));
    message.attributes.extend((route.destination.prefix_len() > 0).then_some(destination));
    message.attributes.extend(gateway);
    message.attributes.push(RouteAttribute::Oif(index));
    RouteNetlinkMessage::NewRoute(message)
}

fn neighbour(index: u32, ip: IpAddr, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        NeighbourAttribute::Destination(NeighbourAddress::from(ip)),
        NeighbourAttribute::LinkLayerAddress(mac.bytes().to_vec()),
    ];
    RouteNetlinkMessage::NewNeighbour(message)
}

fn first_refusal(results: Vec<Result<(), Refusal>>) -> io::Result<()> {
    results.into_iter().collect::<Result<(), _>>().map_err(io::Error::other)
}
