//! Host ports: what one is, and the only rules for them.

use std::{collections::HashMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::error::Invalid;

/// Transport of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// 1 to 65535.
    pub host_port: u16,
    /// 1 to 65535.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// `None`: every address of the host, both families; unspecified: every one of its family.
    pub host_ip: Option<IpAddr>,
}

/// A port of a pod's container that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// Its name, unique within its container.
    pub name: String,
    /// 1 to 65535.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// A port number as a caller gives it.
///
/// # Errors
/// It is not in 1 to 65535.
pub fn port_number(port: u32) -> Result<u16, String> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{port} is not a port (1 to 65535)"))
}

/// A host address as a caller gives it; `None`, every address of both families, for an empty
/// one. 0.0.0.0 is every address of IPv4, :: every one of IPv6, and an IPv4 address mapped into
/// IPv6 is what it maps to.
///
/// # Errors
/// It is not an address, or one that the kernel can't forward from.
pub fn host_ip(text: &str) -> Result<Option<IpAddr>, String> {
    const SHOWN: usize = 64;
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(SHOWN).collect();
    let ip: IpAddr = text.parse().map_err(|_| format!("{shown:?} is not an IP address"))?;
    let ip = ip.to_canonical();
    check_host_ip(ip).map(|()| Some(ip))
}

/// Whether a host port on one of these addresses clashes with the same port on the other: a
/// client's packet could match both.
pub fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => {
            a == b || a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified())
        }
    }
}

/// Whether a list has one host port twice. A port of a single address goes before the same
/// port of every address, so these two may be in one list.
fn is_twice(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let single = |ip: Option<IpAddr>| ip.is_some_and(|ip| !ip.is_unspecified());
    overlap(one, other) && single(one) == single(other)
}

fn check_host_ip(ip: IpAddr) -> Result<(), String> {
    if ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST) {
        return Err("::1 can't be forwarded by the kernel; leave it empty or use 127.0.0.1".into());
    }
    if ip.is_multicast() { Err(format!("{ip} is a multicast address")) } else { Ok(()) }
}

/// Checks the mappings of one endpoint, each with its position in what the caller wrote:
/// every one by itself, and that none is there twice.
///
/// # Errors
/// `port_mappings[i].host_port`, `.container_port`, `.host_ip`.
pub fn check<'a>(
    mappings: impl IntoIterator<Item = (usize, &'a PortMapping)>,
) -> Result<(), Invalid> {
    let mut bad = Invalid::new();
    let mut seen: HashMap<(u16, Protocol), Vec<Option<IpAddr>>> = HashMap::new();
    for (i, mapping) in mappings {
        let field = |part: &str| format!("port_mappings[{i}].{part}");
        let PortMapping { host_port, container_port, protocol, host_ip } = mapping;
        bad.take(&field("host_port"), port_number((*host_port).into()));
        bad.take(&field("container_port"), port_number((*container_port).into()));
        let before = seen.entry((*host_port, *protocol)).or_default();
        if before.iter().any(|other| is_twice(*other, *host_ip)) {
            bad.add(field("host_port"), format!("{host_port} is mapped twice"));
        }
        before.push(*host_ip);
        if let Some(ip) = host_ip {
            bad.take(&field("host_ip"), check_host_ip(*ip));
        }
    }
    bad.into_result()
}

/// Checks that an endpoint with the addresses `ips` can be reached at every host address. Of a
/// pair of 0.0.0.0 and ::, which means every address as well, one is enough.
///
/// # Errors
/// `port_mappings[i].host_ip`: the endpoint has no address of this family.
pub fn check_families(
    mappings: &[PortMapping],
    ips: impl Iterator<Item = IpAddr> + Clone,
) -> Result<(), Invalid> {
    let mut bad = Invalid::new();
    for (i, mapping) in mappings.iter().enumerate() {
        let Some(ip) = mapping.host_ip else { continue };
        let has = |family: IpAddr| ips.clone().any(|own| own.is_ipv4() == family.is_ipv4());
        let is_pair = |other: &PortMapping| {
            let rest = PortMapping { host_ip: Some(ip), ..other.clone() };
            rest == *mapping && other.host_ip.is_some_and(|o| o.is_unspecified() && has(o))
        };
        let reached = has(ip) || ip.is_unspecified() && mappings.iter().any(is_pair);
        if !reached {
            let text = format!("{ip}: the endpoint has no address of this family");
            bad.add(format!("port_mappings[{i}].host_ip"), text);
        }
    }
    bad.into_result()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn mapping(host_port: u16, host_ip: Option<&str>) -> PortMapping {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMapping { host_port, container_port: 80, protocol: Protocol::Tcp, host_ip }
    }

    #[test]
    fn host_addresses_are_read_as_callers_write_them() {
        assert_eq!(host_ip(""), Ok(None));
        for every in ["0.0.0.0", "::"] {
            assert_eq!(host_ip(every), Ok(Some(every.parse().unwrap())), "of its family only");
        }
        assert_eq!(host_ip("::ffff:192.0.2.1"), Ok(Some("192.0.2.1".parse().unwrap())));
        assert_eq!(host_ip("::ffff:0.0.0.0"), Ok(Some("0.0.0.0".parse().unwrap())));
        assert_eq!(host_ip("192.0.2.1"), Ok(Some("192.0.2.1".parse().unwrap())));
        for (text, word) in [("::1", "127.0.0.1"), ("ff02::1", "multicast"), ("x", "not an IP")] {
            assert!(host_ip(text).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn a_list_is_checked_by_field_and_position() {
        let all = [mapping(0, None), mapping(80, Some("224.0.0.1")), mapping(81, None)];
        let twice = mapping(81, None);
        let list = all.iter().enumerate().chain([(7, &twice)]);
        let bad = check(list).unwrap_err();
        let fields: Vec<_> = bad.violations.iter().map(|v| v.field.as_str()).collect();
        let [first, second, third] = [
            "port_mappings[0].host_port",
            "port_mappings[1].host_ip",
            "port_mappings[7].host_port",
        ];
        assert_eq!(fields, [first, second, third]);
    }

    #[test]
    fn every_address_of_one_family_and_of_the_other_are_two_ports() {
        let fine = |ips: &[Option<&str>]| {
            let all: Vec<_> = ips.iter().map(|ip| mapping(80, *ip)).collect();
            check(all.iter().enumerate()).is_ok()
        };
        let (v4, v6) = (Some("0.0.0.0"), Some("::"));
        assert!(fine(&[v4, v6]) && fine(&[None, Some("192.0.2.1")]));
        assert!(fine(&[v4, v6, Some("192.0.2.1"), Some("2001:db8::1")]));
        for twice in [[None, v4], [v6, None], [v4, v4], [Some("192.0.2.1"), Some("192.0.2.1")]] {
            assert!(!fine(&twice), "{twice:?}");
        }
    }

    #[test]
    fn addresses_clash_when_a_packet_can_match_both() {
        let clash = |a: Option<&str>, b: Option<&str>| {
            let [a, b] = [a, b].map(|ip| ip.map(|ip| ip.parse().unwrap()));
            assert_eq!(overlap(a, b), overlap(b, a));
            overlap(a, b)
        };
        let (v4, v6) = (Some("0.0.0.0"), Some("::"));
        assert!(clash(None, v4) && clash(None, v6) && clash(None, Some("::1")));
        assert!(clash(v4, Some("192.0.2.1")) && clash(v6, Some("2001:db8::1")));
        assert!(!clash(v4, v6) && !clash(v4, Some("2001:db8::1")));
        assert!(!clash(Some("192.0.2.1"), Some("192.0.2.2")));
    }

    #[test]
    fn of_a_pair_for_both_families_one_is_enough() {
        let v4 = ["10.1.0.5".parse().unwrap()];
        let pair = [mapping(80, Some("0.0.0.0")), mapping(80, Some("::"))];
        assert!(check_families(&pair, v4.into_iter()).is_ok());
        assert!(check_families(&pair[..1], v4.into_iter()).is_ok());
        assert!(check_families(&pair[1..], v4.into_iter()).is_err(), "no IPv6 at all");
        let other = [mapping(80, Some("0.0.0.0")), mapping(81, Some("::"))];
        assert!(check_families(&other, v4.into_iter()).is_err(), "another port");
    }

    #[test]
    fn a_host_address_needs_an_endpoint_of_its_family() {
        let v4 = ["10.1.0.5".parse().unwrap()];
        let ports = [mapping(80, Some("192.0.2.1")), mapping(81, Some("2001:db8::1"))];
        let bad = check_families(&ports, v4.into_iter()).unwrap_err();
        assert_eq!(bad.violations.len(), 1);
        assert_eq!(bad.violations[0].field, "port_mappings[1].host_ip");
    }
}
