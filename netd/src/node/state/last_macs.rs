//! Which MAC answered for an address last. A neighbour that has another one keeps it for half a
//! minute unless it is told, and telling it costs a packet to every pod of the bridge: so only
//! news are told.

use std::{collections::HashMap, net::IpAddr};

use netd_domain::{Mac, Wiring};

/// Addresses that are remembered. Beyond them all are forgotten, which costs an announcement
/// that is not made where an address comes back with another MAC.
const MAX_ADDRESSES: usize = 1 << 16;

/// The last MACs of addresses that are free now; `None`: one that netd does not know.
#[derive(Debug, Default)]
pub(super) struct LastMacs(HashMap<IpAddr, Option<Mac>>);

impl LastMacs {
    /// The addresses are nobody's from now on.
    pub(super) fn released(&mut self, wiring: &Wiring) {
        wiring.ips().for_each(|ip| self.remember(ip, Some(wiring.present_mac())));
    }

    /// The address was a pod's of which netd does not know the MAC.
    pub(super) fn was_of_unknown(&mut self, ip: IpAddr) {
        self.remember(ip, None);
    }

    /// Whether a neighbour may have another MAC for an address of this endpoint. An address that
    /// is not remembered had the MAC that netd makes from it, if it had one at all.
    pub(super) fn are_news(&self, wiring: &Wiring) -> bool {
        let mac = wiring.present_mac();
        let chosen = !wiring.ips().any(|ip| Mac::of_ip(ip) == mac);
        wiring.ips().any(|ip| self.0.get(&ip).map_or(chosen, |last| *last != Some(mac)))
    }

    fn remember(&mut self, ip: IpAddr, mac: Option<Mac>) {
        if self.0.len() >= MAX_ADDRESSES {
            self.0.clear();
        }
        self.0.insert(ip, mac);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use netd_domain::{Bandwidth, WiringDriver, wiring::WiredAddress};

    use super::*;

    /// With the MAC that netd makes of the first address unless another one is asked for.
    fn wiring(ips: &[&str], mac: Option<&str>) -> Wiring {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let mac = mac.map_or(Mac::of_ip(ips[0]), |mac| mac.parse().unwrap());
        let wired = |ip: &IpAddr| WiredAddress { address: (*ip).into(), gateway: None };
        Wiring {
            network: "default".parse().unwrap(),
            driver: WiringDriver::Routed,
            host_ifname: "nd1".parse().unwrap(),
            ifname: "eth0".parse().unwrap(),
            mac,
            host_mac: mac,
            mtu: 1500,
            addresses: ips.iter().map(wired).collect(),
            routes: vec![],
            port_mappings: vec![],
            bandwidth: Bandwidth::default(),
            pod_mac: None,
        }
    }

    #[test]
    fn only_a_change_of_the_mac_is_news() {
        let mut last = LastMacs::default();
        let usual = wiring(&["10.88.0.5", "fd00:88::5"], None);
        assert!(!last.are_news(&usual), "an address that nobody had yet");
        let chosen = wiring(&["10.88.0.5", "fd00:88::5"], Some("0a:00:00:00:00:01"));
        assert!(last.are_news(&chosen), "a MAC that is not made from the address");
        last.released(&chosen);
        assert!(!last.are_news(&chosen), "the same pod again");
        assert!(last.are_news(&usual), "after a pod with a MAC of its own");
        last.released(&usual);
        assert!(!last.are_news(&usual));
        let mixed = wiring(&["10.88.0.6", "fd00:88::5"], None);
        assert!(last.are_news(&mixed), "the IPv6 address had the MAC of another IPv4 address");
    }

    #[test]
    fn what_another_program_gave_back_is_news() {
        let mut last = LastMacs::default();
        let usual = wiring(&["10.88.0.5"], None);
        last.was_of_unknown("10.88.0.5".parse().unwrap());
        assert!(last.are_news(&usual));
    }

    #[test]
    fn a_mac_that_the_pod_changed_is_the_last_one() {
        let mut last = LastMacs::default();
        let usual = wiring(&["10.88.0.5"], None);
        let mut changed = wiring(&["10.88.0.5"], None);
        changed.pod_mac = Some("0a:00:00:00:00:02".parse().unwrap());
        last.released(&changed);
        assert!(last.are_news(&usual));
    }
}
