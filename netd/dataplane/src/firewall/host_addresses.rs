//! The node's own addresses: those on which a host port without an address of its own is.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::RouteNetlinkMessage;

use crate::{
    endpoint::observed::ActualLink,
    netlink::{Socket, address, link::LinkId, query},
};

/// `LOOPBACK_IFINDEX`
const LOOPBACK: u32 = 1;
/// Devices that hold addresses of services, not the node's; dummy devices as a rule.
const SERVICE_DEVICES: [&str; 3] = ["kube-ipvs0", "nodelocaldns", "kube-dummy-if"];

/// Reads them from the kernel. 127.0.0.1 is always one of them, no other of a loopback device
/// is.
pub(super) fn read(socket: &mut Socket) -> io::Result<BTreeSet<IpAddr>> {
    let mut by_link: BTreeMap<u32, Vec<IpAddr>> = BTreeMap::new();
    for message in query::some_family(socket.dump_moving(&address::list(0)))? {
        let Some(RouteNetlinkMessage::NewAddress(message)) = message.route() else { continue };
        let ips = by_link.entry(message.header.index).or_default();
        ips.extend(address::read(&message).map(|net| net.addr()));
    }
    let mut own = BTreeSet::from([IpAddr::from(Ipv4Addr::LOCALHOST)]);
    for (index, ips) in by_link {
        // A link that has gone meanwhile took its addresses with it.
        if let Some(link) = query::link(socket, LinkId::Index(index))?
            && is_the_nodes(&link)
        {
            own.extend(ips.into_iter().filter(|ip| !ip.is_loopback()));
        }
    }
    Ok(own)
}

fn is_the_nodes(link: &ActualLink) -> bool {
    let of_services = link.kind == "dummy" || SERVICE_DEVICES.contains(&link.name.as_str());
    link.index != LOOPBACK && !of_services
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_on_dummy_loopback_and_service_devices_are_not_the_nodes() {
        let own = |index, kind: &str, name: &str| {
            is_the_nodes(&ActualLink {
                index,
                kind: kind.to_owned(),
                name: name.to_owned(),
                ..ActualLink::default()
            })
        };
        assert!(own(2, "", "eth0") && own(7, "bridge", "cni0") && own(8, "vlan", "eth0.7"));
        assert!(!own(1, "", "lo") && !own(3, "dummy", "anycast0"));
        assert!(!own(3, "dummy", "kube-ipvs0") && !own(4, "veth", "nodelocaldns"));
    }
}
