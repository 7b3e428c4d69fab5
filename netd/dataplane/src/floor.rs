//! What the kernel takes for an endpoint at the very least: the yardstick of benchmarks.
//!
//! No plan, no check, no threads, no undo, no firewall: one `sendmsg` on the host and
//! one in the sandbox, interface indexes chosen by the caller so that nothing has to be
//! asked back. IPv4 only. Nothing but benchmarks may use this.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{InfoData, InfoVeth, LinkAttribute, LinkInfo},
};

use super::{
    message::{
        link::{self, Which},
        net,
    },
    netlink::{Batch, Family, Refusal, Socket},
    netns,
};
use netd_domain::{Route, Wiring, WiringDriver};

const PUT: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;

/// Makes the wiring in the namespace `sandbox`; `index` is free on the host and in the
/// sandbox, `bridge` the bridge's index.
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
    batch.route(with_index(link::veth(wiring, fd.as_raw_fd(), bridge), index), PUT);
    let addresses: Vec<_> = wiring.addresses.iter().map(|a| a.address).collect();
    if wiring.driver == WiringDriver::Routed {
        for ip in addresses.iter().map(ipnet::IpNet::addr) {
            let route = Route { destination: ip.into(), gateway: None };
            batch.route(net::route(index, &route), PUT);
            batch.route(net::neighbour(index, ip, wiring.mac), PUT);
        }
    }
    all_good(host.batch(batch)?)?;
    let mut pod = netns::run_in(fd, || Socket::open(Family::Route))??;
    let mut batch = Batch::new();
    batch.route(link::set_up(Which::Index(index)), 0);
    batch.route(link::set_up(Which::Name("lo")), 0);
    for address in addresses {
        batch.route(net::add_address(index, address), PUT);
    }
    if wiring.driver == WiringDriver::Routed {
        let gateway = netd_domain::wiring::ROUTED_GATEWAY_V4;
        batch.route(net::neighbour(index, gateway, wiring.host_mac), PUT);
    }
    for route in &wiring.routes {
        batch.route(net::route(index, route), PUT);
    }
    all_good(pod.batch(batch)?)
}

/// Makes a bridge; its index.
///
/// # Errors
/// The kernel's refusal.
pub fn bridge(host: &mut Socket, wiring: &netd_domain::BridgeWiring, mtu: u32) -> io::Result<u32> {
    let mut batch = Batch::new();
    batch.route(link::bridge(wiring, mtu), PUT);
    all_good(host.batch(batch)?)?;
    let found = super::observe::link(host, Which::Name(wiring.name.as_str()))?;
    found.map(|link| link.index).ok_or_else(|| io::Error::other("the bridge was gone at once"))
}

fn with_index(mut message: RouteNetlinkMessage, index: u32) -> RouteNetlinkMessage {
    if let RouteNetlinkMessage::NewLink(link) = &mut message {
        link.header.index = index;
        for attribute in &mut link.attributes {
            let LinkAttribute::LinkInfo(info) = attribute else { continue };
            for part in info {
                if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = part {
                    peer.header.index = index;
                }
            }
        }
    }
    message
}

fn all_good(results: Vec<Result<(), Refusal>>) -> io::Result<()> {
    results.into_iter().collect::<Result<(), _>>().map_err(io::Error::other)
}
