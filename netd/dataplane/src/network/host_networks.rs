//! The networks that the host itself is in, or leads to.

use std::{collections::HashMap, io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

use super::underlay;
use crate::{
    exec::context::Context,
    netlink::{
        address,
        entry::KernelHop,
        link::LinkId,
        overlay_entry,
        query::{self, some_family},
        route::NETD_PROTOCOL,
    },
};
use netd_domain::{HostNetwork, NetworkWiring};

/// All but those of netd's own devices, of the loopback device and of link-local addresses.
pub(crate) fn list(kernel: &mut Context) -> io::Result<Vec<HostNetwork>> {
    let mut devices = Devices(HashMap::new());
    let mut found = Vec::new();
    let every = 0;
    let addresses = some_family(kernel.socket.dump(address::list(every)))?;
    for held in addresses.iter().filter_map(|message| address::read_body(message.body())) {
        if held.is_global()
            && let Some(device) = devices.name(kernel, held.link)?
        {
            found.push(HostNetwork { net: held.net, device, routed: false });
        }
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let any_protocol = 0;
        let request = overlay_entry::get_routes(family, any_protocol);
        let routes = some_family(kernel.socket.dump(request))?;
        for route in routes.iter().filter_map(|m| overlay_entry::read_route(m.body())) {
            let Some(link) = route.hop.link() else { continue };
            if route.protocol == NETD_PROTOCOL || is_of_every_host(route.destination.addr()) {
                continue;
            }
            if let Some(device) = devices.name(kernel, link)? {
                let (net, routed) = (route.destination, matches!(route.hop, KernelHop::Via { .. }));
                found.push(HostNetwork { net, device, routed });
            }
        }
    }
    Ok(found)
}

/// Those of a network's gateways that its bridge has already.
pub(crate) fn gateways(kernel: &mut Context, network: &NetworkWiring) -> io::Result<Vec<IpNet>> {
    let Some(bridge) = &network.bridge else { return Ok(vec![]) };
    let link = query::link(&mut kernel.socket, LinkId::Name(bridge.name.as_str()))?;
    let Some(link) = link else { return Ok(vec![]) };
    let held = some_family(kernel.socket.dump(address::list(link.index)))?;
    let held = held.iter().filter_map(|message| address::read_body(message.body()));
    let held = held.filter(|held| held.link == link.index).map(|held| held.net);
    Ok(held.filter(|net| bridge.addresses.contains(net)).collect())
}

fn is_of_every_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback() || v6.is_multicast(),
    }
}

/// Names of the devices that count, by index.
struct Devices(HashMap<u32, Option<String>>);

impl Devices {
    fn name(&mut self, kernel: &mut Context, index: u32) -> io::Result<Option<String>> {
        const LOOPBACK: u32 = 1;
        if let Some(known) = self.0.get(&index) {
            return Ok(known.clone());
        }
        let link = query::link(&mut kernel.socket, LinkId::Index(index))?;
        let counts =
            |name: &String| index != LOOPBACK && !underlay::is_own(&kernel.shared, index, name);
        let name = link.map(|link| link.name).filter(counts);
        self.0.insert(index, name.clone());
        Ok(name)
    }
}
