//! Checks that no pool overlaps with the host's routes and addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::finding::Finding;
use netd_domain::{Network, network::overlap};

const CHECK: &str = "addresses";

#[derive(Debug, Clone, PartialEq, Eq)]
struct HostNet {
    net: IpNet,
    device: String,
    /// "route" or "address".
    kind: &'static str,
    /// A gateway leads there; else the host itself is in it.
    routed: bool,
}

/// `configured`: what the configuration names; `running`: what netd has, with leased pools.
pub(super) fn check(configured: &[Network], running: &[Network]) -> Vec<Finding> {
    let is_running = |network: &&Network| !running.iter().any(|n| n.name == network.name);
    let all: Vec<Network> = configured.iter().filter(is_running).chain(running).cloned().collect();
    let networks = &all;
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut known = routes_v4(&read("/proc/net/route"));
    known.extend(routes_v6(&read("/proc/net/ipv6_route")));
    known.extend(addresses());
    judge(&known, networks)
}

fn addresses() -> Vec<HostNet> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    all.filter_map(|found| {
        let address = found.address?;
        let ip: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => v4.ip().into(),
            (_, Some(v6)) => v6.ip().into(),
            _ => return None,
        };
        Some(HostNet {
            net: IpNet::from(ip),
            device: found.interface_name,
            kind: "address",
            routed: false,
        })
    })
    .collect()
}

/// `/proc/net/route`: destination and mask are hex words in the machine's byte order.
fn routes_v4(text: &str) -> Vec<HostNet> {
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let word = |i: usize| {
            let word = u32::from_str_radix(columns.get(i)?, 16).ok()?;
            Some(Ipv4Addr::from(word.to_ne_bytes()))
        };
        let net = IpNet::with_netmask(word(1)?.into(), word(7)?.into()).ok()?;
        let (device, routed) = ((*columns.first()?).to_owned(), !word(2)?.is_unspecified());
        Some(HostNet { net, device, kind: "route", routed })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// `/proc/net/ipv6_route`: destination, prefix length, ..., device.
fn routes_v6(text: &str) -> Vec<HostNet> {
    let line = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let ip = Ipv6Addr::from(u128::from_str_radix(columns.first()?, 16).ok()?);
        let length = u8::from_str_radix(columns.get(1)?, 16).ok()?;
        let net = IpNet::new(ip.into(), length).ok()?;
        let hop = u128::from_str_radix(columns.get(4)?, 16).ok()?;
        Some(HostNet {
            net,
            device: (*columns.last()?).to_owned(),
            kind: "route",
            routed: hop != 0,
        })
    };
    text.lines().filter_map(line).collect()
}

fn judge(known: &[HostNet], networks: &[Network]) -> Vec<Finding> {
    let ours = |device: &str| {
        device.starts_with("nd") || networks.iter().any(|n| n.bridge.as_str() == device)
    };
    let mut found: Vec<Finding> = vec![];
    for network in networks {
        for pool in &network.pools {
            let foreign = known.iter().filter(|k| !ours(&k.device) && k.net.prefix_len() > 0);
            let clashes = |k: &&HostNet| {
                overlap(&k.net, &pool.subnet) && !is_network_address(&k.net, &pool.subnet)
            };
            for k in foreign.filter(clashes) {
                let finding = conflict(network, &pool.subnet, k);
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
        }
    }
    if found.is_empty() {
        found.push(Finding::ok(CHECK, "no pool overlaps with the host's routes and addresses"));
    }
    found
}

/// No pod has a subnet's first address: it is that of the overlay's device.
fn is_network_address(net: &IpNet, subnet: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len() && net.addr() == subnet.network()
}

fn conflict(network: &Network, subnet: &IpNet, known: &HostNet) -> Finding {
    let HostNet { net, device, kind, routed } = known;
    let what =
        format!("pool {subnet} of {} overlaps with the {kind} {net} on {device}", network.name);
    if network.allow_host_overlap {
        return Finding::ok(CHECK, format!("{what}, as its allow_host_overlap permits"));
    }
    let fix = "choose another subnet for the pool, or remove the route or address";
    // The pool's route is more specific than a wider one, so only the pool's part is lost: of a
    // network that the host itself is in, that is its neighbours.
    if net.prefix_len() < subnet.prefix_len() && *routed {
        return Finding::warn(CHECK, what)
            .breaks(format!("hosts in {subnet} behind {device} can't be reached from this node"))
            .fix(fix);
    }
    Finding::fail(CHECK, what)
        .breaks(format!(
            "pods with addresses in {net} can't be reached: the host sends to {device}"
        ))
        .fix(fix)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::doctor::{default_networks, finding::Severity};

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        vpn0\t0003F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        garbage\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_tables_are_read() {
        let v4 = routes_v4(ROUTES);
        assert_eq!(v4.len(), 2);
        assert_eq!(
            (v4[1].net.to_string().as_str(), v4[1].device.as_str()),
            ("10.244.3.0/24", "vpn0")
        );
        let v6 = routes_v6(
            "fd000010024400000000000000000000 40 00000000000000000000000000000000 00 \
             00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\nx y\n",
        );
        assert_eq!(v6[0].net.to_string(), "fd00:10:244::/64");
        assert_eq!(v6.len(), 1);
    }

    fn known(net: &str, device: &str) -> HostNet {
        HostNet { net: net.parse().unwrap(), device: device.into(), kind: "route", routed: true }
    }

    #[test]
    fn more_specific_routes_fail_wider_ones_warn_own_ones_and_defaults_pass() {
        let networks = default_networks();
        let severity = |k| judge(&[k], &networks)[0].severity;
        assert_eq!(severity(known("10.244.3.0/24", "vpn0")), Severity::Fail);
        assert_eq!(severity(known("10.244.0.0/16", "flannel.1")), Severity::Fail);
        assert_eq!(severity(known("10.0.0.0/8", "eth0")), Severity::Warn);
        assert_eq!(severity(known("fd00:10:244::5/128", "eth0")), Severity::Fail);
        // The overlay's device has the subnet's first address.
        assert_eq!(severity(known("10.244.0.0/32", "flannel.1")), Severity::Ok);
        assert_eq!(severity(known("fd00:10:244::/128", "flannel-v6.1")), Severity::Ok);
        assert_eq!(severity(known("0.0.0.0/0", "eth0")), Severity::Ok);
        assert_eq!(severity(known("10.244.0.0/16", "cni0")), Severity::Ok);
        assert_eq!(severity(known("10.244.0.7/32", "nd0123456789ab")), Severity::Ok);
        assert_eq!(severity(known("192.0.2.0/24", "eth0")), Severity::Ok);
        // The host's own LAN, and a pool that is a part of it.
        let lan = HostNet { routed: false, ..known("10.0.0.0/8", "eth0") };
        assert_eq!(severity(lan), Severity::Fail);
    }

    #[test]
    fn an_overlap_that_the_network_allows_is_told_and_passes() {
        let mut networks = default_networks();
        networks.iter_mut().for_each(|network| network.allow_host_overlap = true);
        let found = judge(&[known("10.244.3.0/24", "vpn0")], &networks);
        assert_eq!(found[0].severity, Severity::Ok);
        assert!(found[0].what.contains("10.244.3.0/24"), "{}", found[0].what);
    }

    #[test]
    fn this_hosts_loopback_is_among_its_addresses() {
        assert!(addresses().iter().any(|k| k.net.addr().is_loopback()));
    }
}
