//! Processes of the host that listen on host ports of pods: their clients reach the pod.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::{IpAddr, SocketAddr},
};

use super::elements;
use crate::netlink::{
    Socket,
    listening::{self, ListeningSocket},
};
use netd_domain::{HostPort, Wiring};

/// A process's socket on a host port of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostListener {
    /// The host port.
    pub port: HostPort,
    /// Where the process listens.
    pub address: SocketAddr,
    /// The user that the socket belongs to.
    pub uid: u32,
}

/// One for each host port of the endpoint on which a process listens. `node`: the addresses on
/// which host ports without an address of their own are.
pub(super) fn find(
    socket: &mut Socket,
    wiring: &Wiring,
    node: &BTreeSet<IpAddr>,
) -> io::Result<Vec<HostListener>> {
    let mut by_protocol: BTreeMap<u8, Vec<ListeningSocket>> = BTreeMap::new();
    let mut found: Vec<HostListener> = Vec::new();
    for element in elements::of_endpoint(wiring) {
        let Some(port) = element.host_port() else { continue };
        let [elements::Part::Ip(pod), _] = *element.data.as_slice() else { continue };
        let protocol = elements::number(port.protocol);
        if let Entry::Vacant(entry) = by_protocol.entry(protocol) {
            entry.insert(listening::list(socket, protocol)?);
        }
        let mut sockets = by_protocol.get(&protocol).into_iter().flatten();
        let clash = sockets.find(|s| clashes(s, &port, pod.is_ipv4(), node));
        // A port of both families has two elements.
        if let Some(clash) = clash
            && !found.iter().any(|known| known.port == port)
        {
            found.push(HostListener { port, address: clash.address, uid: clash.uid });
        }
    }
    Ok(found)
}

/// Whether a client of the process would reach the pod instead.
fn clashes(socket: &ListeningSocket, port: &HostPort, v4: bool, node: &BTreeSet<IpAddr>) -> bool {
    let ip = socket.address.ip();
    let everywhere = ip.is_unspecified() && (ip.is_ipv4() == v4 || socket.both_families);
    let here = match port.ip {
        Some(bound) => ip == bound,
        None => ip.is_ipv4() == v4 && node.contains(&ip),
    };
    socket.address.port() == port.port && (everywhere || here)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::Protocol;

    #[test]
    fn a_socket_clashes_where_its_clients_would_reach_the_pod() {
        let node = ["127.0.0.1", "192.0.2.1", "2001:db8::1"].iter().map(|ip| ip.parse().unwrap());
        let node: BTreeSet<IpAddr> = node.collect();
        let clash = |address: &str, both_families, port_ip: Option<&str>, v4| {
            let ip = port_ip.map(|ip| ip.parse().unwrap());
            let port = HostPort { port: 53, protocol: Protocol::Udp, ip };
            let address = address.parse().unwrap();
            clashes(&ListeningSocket { address, both_families, uid: 0 }, &port, v4, &node)
        };
        assert!(clash("0.0.0.0:53", false, None, true) && clash("127.0.0.1:53", false, None, true));
        assert!(!clash("127.0.0.53:53", false, None, true), "not one of the node's");
        assert!(!clash("0.0.0.0:54", false, None, true), "another port");
        assert!(clash("[::]:53", true, None, true) && !clash("[::]:53", false, None, true));
        assert!(clash("[::]:53", false, None, false) && !clash("0.0.0.0:53", false, None, false));
        let bound = Some("192.0.2.1");
        assert!(
            clash("0.0.0.0:53", false, bound, true) && clash("192.0.2.1:53", false, bound, true)
        );
        assert!(!clash("127.0.0.1:53", false, bound, true));
    }
}
