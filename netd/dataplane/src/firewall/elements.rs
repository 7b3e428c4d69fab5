//! The elements of sets and maps that an endpoint needs. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, Ipv6Addr},
};

use super::settings::FirewallState;
use crate::DataplaneError;
use netd_domain::{HostPort, IfName, Mac, PortMapping, Protocol, Wiring, WiringDriver};

/// nftables families (uapi/linux/netfilter.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Layer {
    /// NFPROTO_INET
    Inet = 1,
    /// NFPROTO_ARP
    Arp = 3,
    /// NFPROTO_BRIDGE
    Bridge = 7,
}

/// A set or map whose elements come and go with endpoints and the node's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SetId {
    pub layer: Layer,
    pub name: &'static str,
}

/// All of them, with their types as nft wants them.
pub(super) const CHANGING_SETS: [(SetId, &str); 11] = [
    (id(Layer::Inet, "node4"), "type ipv4_addr"),
    (id(Layer::Inet, "node6"), "type ipv6_addr"),
    (id(Layer::Inet, "owners4"), "type ifname . ether_addr . ipv4_addr"),
    (id(Layer::Inet, "owners6"), "type ifname . ether_addr . ipv6_addr"),
    (id(Layer::Inet, "ports4"), "type inet_proto . inet_service : ipv4_addr . inet_service"),
    (id(Layer::Inet, "ports6"), "type inet_proto . inet_service : ipv6_addr . inet_service"),
    (
        id(Layer::Inet, "bound4"),
        "type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    ),
    (
        id(Layer::Inet, "bound6"),
        "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    ),
    (id(Layer::Bridge, "owners4"), "type ifname . ether_addr . ipv4_addr"),
    (id(Layer::Bridge, "owners6"), "type ifname . ether_addr . ipv6_addr"),
    // nft before 1.0.9 has no name for the target of neighbour discovery, and won't
    // look up a nameless field in a set of addresses.
    (id(Layer::Bridge, "targets6"), "typeof iifname . ether saddr . @th,64,128"),
];

/// The kind of a map, whose elements have data.
pub(super) fn is_map(kind: &str) -> bool {
    kind.contains(" : ")
}

const fn id(layer: Layer, name: &'static str) -> SetId {
    SetId { layer, name }
}

/// A field of a concatenation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Interface(IfName),
    Mac(Mac),
    Ip(IpAddr),
    /// A field that nft has no type for.
    Raw(Ipv6Addr),
    Protocol(Protocol),
    Port(u16),
}

/// One element; `data` is empty in sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    pub set: SetId,
    pub key: Vec<Part>,
    pub data: Vec<Part>,
}

/// Key and data as the kernel has them.
pub(super) type Encoded = (Vec<u8>, Vec<u8>);

/// The fields as the kernel has them: network byte order, each padded to four bytes
/// (`NFT_REG32_SIZE`).
pub(super) fn bytes(parts: &[Part]) -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    for part in parts {
        match part {
            Part::Interface(name) => {
                let mut field = [0; libc::IFNAMSIZ];
                // At most 15 bytes, by IfName's rules.
                for (to, from) in field.iter_mut().zip(name.as_str().bytes()) {
                    *to = from;
                }
                out.extend_from_slice(&field);
            }
            Part::Mac(mac) => out.extend_from_slice(&mac.bytes()),
            Part::Ip(IpAddr::V4(ip)) => out.extend_from_slice(&ip.octets()),
            Part::Ip(IpAddr::V6(ip)) | Part::Raw(ip) => out.extend_from_slice(&ip.octets()),
            Part::Protocol(protocol) => out.push(number(*protocol)),
            Part::Port(port) => out.extend_from_slice(&port.to_be_bytes()),
        }
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// The fields as nft reads them.
pub(super) fn text(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        if !out.is_empty() {
            out.push_str(" . ");
        }
        // Writing to a String can't fail.
        let _ = match part {
            Part::Interface(name) => write!(out, "\"{name}\""),
            Part::Mac(mac) => write!(out, "{mac}"),
            Part::Ip(ip) => write!(out, "{ip}"),
            Part::Raw(ip) => write!(out, "0x{:032x}", u128::from(*ip)),
            Part::Protocol(protocol) => write!(out, "{protocol}"),
            Part::Port(port) => write!(out, "{port}"),
        };
    }
    out
}

/// IANA's protocol number.
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

impl Element {
    /// The host port that the element maps; `None` for elements of other sets.
    pub(super) fn host_port(&self) -> Option<HostPort> {
        let (ip, protocol, port) = match *self.key.as_slice() {
            [Part::Protocol(protocol), Part::Port(port)] => (None, protocol, port),
            [Part::Ip(ip), Part::Protocol(protocol), Part::Port(port)] => {
                (Some(ip), protocol, port)
            }
            _ => return None,
        };
        Some(HostPort { port, protocol, ip })
    }

    /// For errors.
    pub(super) fn describe(&self) -> String {
        let layer = match self.set.layer {
            Layer::Inet => "inet",
            Layer::Arp => "arp",
            Layer::Bridge => "bridge",
        };
        format!("{{ {} }} of {layer} {} {}", text(&self.key), super::settings::TABLE, self.set.name)
    }
}

/// The link-local address that the kernel makes of a MAC by default (RFC 4291,
/// appendix A). Neighbour discovery may use it as its source.
pub(super) fn link_local(mac: Mac) -> Ipv6Addr {
    mac.link_local()
}

/// The elements of one endpoint. A mapping whose host address is of a family that
/// the endpoint lacks has none.
pub(super) fn of_endpoint(wiring: &Wiring) -> Vec<Element> {
    let addresses: Vec<IpAddr> = wiring.addresses.iter().map(|a| a.address.addr()).collect();
    let mut all = Vec::with_capacity(6);
    for address in &addresses {
        owners(wiring, *address, &mut all);
    }
    for mapping in &wiring.port_mappings {
        all.extend(addresses.iter().filter_map(|pod| port(mapping, *pod)));
    }
    all
}

fn owners(wiring: &Wiring, address: IpAddr, all: &mut Vec<Element>) {
    let mut own = |layer, name, last: Part| {
        for mac in wiring.macs() {
            let key =
                vec![Part::Interface(wiring.host_ifname.clone()), Part::Mac(mac), last.clone()];
            all.push(Element { set: id(layer, name), key, data: vec![] });
        }
    };
    match (&wiring.driver, address) {
        (WiringDriver::Routed, IpAddr::V4(_)) => own(Layer::Inet, "owners4", Part::Ip(address)),
        (WiringDriver::Routed, IpAddr::V6(_)) => own(Layer::Inet, "owners6", Part::Ip(address)),
        (WiringDriver::Bridge(_), IpAddr::V4(_)) => {
            own(Layer::Bridge, "owners4", Part::Ip(address));
        }
        (WiringDriver::Bridge(_), IpAddr::V6(v6)) => {
            for ip in std::iter::once(v6).chain(wiring.macs().map(link_local)) {
                own(Layer::Bridge, "owners6", Part::Ip(ip.into()));
                own(Layer::Bridge, "targets6", Part::Raw(ip));
            }
        }
    }
}

/// Where `mapping` leads for the pod's address `pod`.
fn port(mapping: &PortMapping, pod: IpAddr) -> Option<Element> {
    let mut key = Vec::with_capacity(3);
    // Records of earlier versions may have mapped addresses.
    let name = match (mapping.host_ip.map(|ip| ip.to_canonical()), pod) {
        (Some(host), _) if host.is_ipv4() != pod.is_ipv4() => return None,
        (Some(host), _) if !host.is_unspecified() => {
            key.push(Part::Ip(host));
            if pod.is_ipv4() { "bound4" } else { "bound6" }
        }
        (_, IpAddr::V4(_)) => "ports4",
        (_, IpAddr::V6(_)) => "ports6",
    };
    key.extend([Part::Protocol(mapping.protocol), Part::Port(mapping.host_port)]);
    let data = vec![Part::Ip(pod), Part::Port(mapping.container_port)];
    Some(Element { set: id(Layer::Inet, name), key, data })
}

/// All elements by set, in the order of the kernel's keys, with their text.
pub(super) type Byset = BTreeMap<SetId, BTreeMap<Vec<u8>, Element>>;

/// The element of one of the node's addresses.
pub(super) fn of_node(ip: IpAddr) -> Element {
    let name = if ip.is_ipv4() { "node4" } else { "node6" };
    Element { set: id(Layer::Inet, name), key: vec![Part::Ip(ip)], data: vec![] }
}

/// The elements of every endpoint and of the node's addresses.
///
/// # Errors
/// `PortTaken` when two endpoints want one host port.
pub(super) fn of_state(
    state: &FirewallState,
    node: &BTreeSet<IpAddr>,
) -> Result<Byset, DataplaneError> {
    let mut all: Byset = CHANGING_SETS.iter().map(|(set, _)| (*set, BTreeMap::new())).collect();
    let endpoints = state.endpoints.iter().flat_map(|wiring| of_endpoint(wiring));
    for element in endpoints.chain(node.iter().map(|ip| of_node(*ip))) {
        let set = all.entry(element.set).or_default();
        if let Some(earlier) = set.get(&bytes(&element.key))
            && earlier.data != element.data
            && let Some(port) = element.host_port()
        {
            return Err(DataplaneError::PortTaken { port });
        }
        set.insert(bytes(&element.key), element);
    }
    Ok(all)
}

/// Keys and data of a set, for comparing.
pub(super) fn encoded(set: &BTreeMap<Vec<u8>, Element>) -> BTreeSet<Encoded> {
    set.iter().map(|(key, element)| (key.clone(), bytes(&element.data))).collect()
}
