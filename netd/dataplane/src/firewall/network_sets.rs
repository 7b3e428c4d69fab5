//! The sets of `inet netd` that only networks change. Pure.
//!
//! Those of intervals stay in place when the tables are replaced, and only the elements that
//! differ go and come. In a transaction that makes new ones, the kernel shows their elements
//! a moment after the new rules are in force: sets of concatenated intervals on every kernel,
//! others on some. For that moment nobody would be anybody's peer, and packets between pods
//! would be dropped.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

use super::settings::FirewallState;
use netd_domain::NetworkWiring;

/// A set that holds ranges of addresses, or pairs of ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IntervalSet {
    pub name: &'static str,
    /// Its type as nft writes it.
    pub kind: &'static str,
    pub v6: bool,
    /// Two addresses make a key.
    pub pairs: bool,
}

/// All of them.
pub(super) const INTERVAL_SETS: [IntervalSet; 14] = [
    v4("pods4"),
    v6("pods6"),
    IntervalSet { kind: "type ipv4_addr . ipv4_addr", pairs: true, ..v4("peers4") },
    IntervalSet { kind: "type ipv6_addr . ipv6_addr", pairs: true, ..v6("peers6") },
    v4("closed4"),
    v6("closed6"),
    v4("masq4"),
    v6("masq6"),
    v4("cluster4"),
    v6("cluster6"),
    v4("published4"),
    v6("published6"),
    v4("own4"),
    v6("own6"),
];

/// Pairs of names of bridges: of one bridge each.
pub(super) const BRIDGES: (&str, &str) = ("bridges", "type ifname . ifname");

const fn v4(name: &'static str) -> IntervalSet {
    IntervalSet { name, kind: "type ipv4_addr", v6: false, pairs: false }
}

const fn v6(name: &'static str) -> IntervalSet {
    IntervalSet { name, kind: "type ipv6_addr", v6: true, pairs: false }
}

/// First and last address; one range a field of the key.
pub(super) type Ranges = Vec<(IpAddr, IpAddr)>;

/// What the networks put into the set.
pub(super) fn ranges(state: &FirewallState, set: &IntervalSet) -> BTreeSet<Ranges> {
    let of_network = |network| {
        let nets = nets(network, set);
        let range = |net: &IpNet| (net.network(), net.broadcast());
        if set.pairs {
            let pair = |a| nets.iter().map(move |b| vec![range(a), range(b)]);
            nets.iter().flat_map(pair).collect::<Vec<_>>()
        } else {
            nets.iter().map(|net| vec![range(net)]).collect()
        }
    };
    state.networks.iter().flat_map(|network| of_network(network)).collect()
}

fn nets(network: &NetworkWiring, set: &IntervalSet) -> Vec<IpNet> {
    let all = || network.ranges().copied().collect();
    let here = || network.subnets.iter().chain(&network.docker0).copied().collect();
    let hides = network.masquerade && !network.internal;
    let nets: Vec<IpNet> = match set.name.trim_end_matches(['4', '6']) {
        "pods" | "peers" => all(),
        "closed" if network.internal => all(),
        "published" if network.published_only => all(),
        "own" => here(),
        "masq" if hides => here(),
        "cluster" if hides => network.cluster.clone(),
        _ => Vec::new(),
    };
    nets.into_iter().filter(|net| matches!(net, IpNet::V6(_)) == set.v6).collect()
}

/// An element as nft reads it.
pub(super) fn text(ranges: &Ranges) -> String {
    let one = |range: &(IpAddr, IpAddr)| match (range, prefix(range)) {
        ((first, last), _) if first == last => first.to_string(),
        (_, Some(net)) => net.to_string(),
        ((first, last), None) => format!("{first}-{last}"),
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(" . ")
}

/// The range as a network, if it is one.
fn prefix((first, last): &(IpAddr, IpAddr)) -> Option<IpNet> {
    let mut nets = match (*first, *last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::V4(Ipv4Subnets::new(first, last, 0)),
        (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::V6(Ipv6Subnets::new(first, last, 0)),
        _ => return None,
    };
    let net = nets.next()?;
    nets.next().is_none().then_some(net)
}

/// The elements of [`BRIDGES`] as nft reads them.
pub(super) fn bridges(state: &FirewallState) -> BTreeSet<String> {
    let bridges = state.networks.iter().filter_map(|network| network.bridge.as_ref());
    bridges.map(|bridge| format!("\"{0}\" . \"{0}\"", bridge.name)).collect()
}
