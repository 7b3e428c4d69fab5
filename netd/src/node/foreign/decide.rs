//! Which addresses are in use by pods that netd has no record of. Pure.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

use super::host_local::Reservation;
use crate::node::state::ForeignHolder;
use netd_dataplane::PodLink;
use netd_domain::{Bandwidth, NetworkName, Wiring, WiringDriver, wiring::WiredAddress};

/// The addresses in use. What the kernel shows counts as it is. A file of host-local counts
/// as long as its pod shows in any way, or is so young (`grace`) that the pod may still be
/// in the making; `lives` says whether the pod's sandbox is there.
pub(super) fn in_use(
    links: &[PodLink],
    reservations: &[Reservation],
    grace: Duration,
    lives: impl Fn(&Reservation) -> bool,
) -> BTreeMap<IpAddr, ForeignHolder> {
    let mut used: BTreeMap<IpAddr, ForeignHolder> = BTreeMap::new();
    for link in links {
        for ip in &link.addresses {
            used.entry(*ip).or_default().link = Some(link.name.clone());
        }
    }
    let shown: HashSet<IpAddr> = used.keys().copied().collect();
    // A dual-stack pod lives if either of its addresses shows.
    let alive = |r: &Reservation| {
        let mut own = reservations.iter().filter(|other| other.container == r.container);
        own.any(|other| shown.contains(&other.ip))
    };
    for one in reservations {
        let young = one.age.is_some_and(|age| age < grace);
        if shown.contains(&one.ip) || young || alive(one) || lives(one) {
            let holder = used.entry(one.ip).or_default();
            holder.container = Some(one.container.clone());
            holder.file = Some(one.file.clone());
        }
    }
    used
}

/// What the firewall needs to let a pod of netd's send whose record was lost: its link, its
/// MAC and its addresses in the networks' pools. Its host ports and limits are lost.
pub(super) fn wiring(
    link: &PodLink,
    network: impl Fn(IpAddr) -> Option<NetworkName>,
) -> Option<Arc<Wiring>> {
    let (host_ifname, mac) = (link.ours.clone()?, link.mac?);
    let named = link.addresses.iter().filter_map(|ip| Some((*ip, network(*ip)?)));
    let named: Vec<_> = named.collect();
    let network = named.first()?.1.clone();
    let wired = |(ip, _): &(IpAddr, _)| WiredAddress { address: IpNet::from(*ip), gateway: None };
    Some(Arc::new(Wiring {
        network,
        driver: link.bridge.clone().map_or(WiringDriver::Routed, WiringDriver::Bridge),
        ifname: host_ifname.clone(),
        host_ifname,
        mac,
        host_mac: link.host_mac.unwrap_or(mac),
        mtu: link.mtu,
        addresses: named.iter().map(wired).collect(),
        routes: Vec::new(),
        port_mappings: Vec::new(),
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(300);

    fn link(name: &str, ips: &[&str]) -> PodLink {
        PodLink {
            name: name.into(),
            index: 7,
            ours: name.parse().ok(),
            bridge: None,
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            host_mac: None,
            mtu: 1500,
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        }
    }

    fn file(ip: &str, container: &str, age: Option<u64>) -> Reservation {
        Reservation {
            ip: ip.parse().unwrap(),
            container: container.into(),
            ifname: None,
            file: format!("/d/{ip}").into(),
            age: age.map(Duration::from_secs),
        }
    }

    #[test]
    fn a_file_counts_as_long_as_its_pod_shows_or_is_being_made() {
        let links = [link("veth1", &["10.1.0.2", "fe80::1"])];
        let files = [
            file("10.1.0.2", "both", Some(9999)),
            file("fd00::2", "both", Some(9999)),
            file("10.1.0.3", "stale", Some(9999)),
            file("10.1.0.4", "young", Some(1)),
            file("10.1.0.5", "kept", Some(9999)),
            file("10.1.0.6", "of tomorrow", None),
        ];
        let used = in_use(&links, &files, GRACE, |r| r.container == "kept");
        let ips: Vec<_> = used.keys().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.1.0.2", "10.1.0.4", "10.1.0.5", "fd00::2", "fe80::1"]);
        let text = used[&"10.1.0.2".parse::<IpAddr>().unwrap()].to_string();
        assert_eq!(text, "container both, behind veth1, reserved by /d/10.1.0.2");
    }

    #[test]
    fn only_netds_own_links_get_rules_and_only_for_addresses_of_its_pools() {
        let of = |ip: IpAddr| ip.is_ipv4().then(|| "blue".parse().unwrap());
        let made = wiring(&link("nd0123456789ab", &["10.1.0.2", "fe80::1"]), of).unwrap();
        assert_eq!(made.addresses.len(), 1);
        assert_eq!(made.driver, WiringDriver::Routed);
        assert!(wiring(&link("nd0123456789ab", &["fe80::1"]), of).is_none());
        let other = PodLink { ours: None, ..link("veth1", &["10.1.0.2"]) };
        assert!(wiring(&other, of).is_none());
    }
}
