//! The tables as `nft -f` reads them: a pure function of settings, networks and
//! endpoints, the same for the same content in whatever order it comes.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use ipnet::IpNet;

use super::{
    elements::{self, CHANGING_SETS, Element, Layer},
    rules,
    settings::{FirewallSettings, FirewallState, TABLE},
};
use crate::DataplaneError;
use netd_domain::NetworkWiring;

/// Sets of `inet netd` that only networks change.
pub(super) const NETWORK_SETS: [(&str, &str); 15] = [
    ("pods4", "type ipv4_addr; flags interval"),
    ("pods6", "type ipv6_addr; flags interval"),
    ("peers4", "type ipv4_addr . ipv4_addr; flags interval"),
    ("peers6", "type ipv6_addr . ipv6_addr; flags interval"),
    ("closed4", "type ipv4_addr; flags interval"),
    ("closed6", "type ipv6_addr; flags interval"),
    ("masq4", "type ipv4_addr; flags interval"),
    ("masq6", "type ipv6_addr; flags interval"),
    ("cluster4", "type ipv4_addr; flags interval"),
    ("cluster6", "type ipv6_addr; flags interval"),
    ("published4", "type ipv4_addr; flags interval"),
    ("published6", "type ipv6_addr; flags interval"),
    ("own4", "type ipv4_addr; flags interval"),
    ("own6", "type ipv6_addr; flags interval"),
    ("bridges", "type ifname . ifname"),
];

const FAMILIES: [(Layer, &str); 3] =
    [(Layer::Inet, "inet"), (Layer::Bridge, "bridge"), (Layer::Arp, "arp")];

/// What changes neither with the endpoints nor with the node's addresses.
pub(super) fn base(
    settings: &FirewallSettings,
    state: &FirewallState,
) -> Result<String, DataplaneError> {
    let networks = state.networks.clone();
    ruleset(settings, &FirewallState { networks, endpoints: Vec::new() }, &BTreeSet::new())
}

/// All tables in one transaction, which deletes the existing ones first.
///
/// # Errors
/// `PortTaken` when two endpoints want one host port.
pub(super) fn ruleset(
    settings: &FirewallSettings,
    state: &FirewallState,
    node: &BTreeSet<IpAddr>,
) -> Result<String, DataplaneError> {
    let changing = elements::of_state(state, node)?;
    let mut out = removal();
    for (layer, family) in FAMILIES {
        line(&mut out, &format!("table {family} {TABLE} {{"));
        line(&mut out, "\tcomment \"made by netd, which undoes changes made by hand\"");
        if layer == Layer::Inet {
            out.push_str(&networks(state));
        }
        for (set, kind) in CHANGING_SETS.iter().filter(|(set, _)| set.layer == layer) {
            let all = changing.get(set).into_iter().flat_map(|all| all.values());
            let keyword = if kind.contains(" : ") { "map" } else { "set" };
            out.push_str(&block(keyword, set.name, kind, all.map(element)));
        }
        out.push_str(&match layer {
            Layer::Inet => rules::inet(settings),
            Layer::Bridge => rules::bridge(),
            Layer::Arp => rules::arp(),
        });
        line(&mut out, "}");
    }
    Ok(out)
}

/// Deletes the tables, whether they exist or not.
pub(super) fn removal() -> String {
    let mut out = String::new();
    for (_, family) in FAMILIES {
        line(&mut out, &format!("table {family} {TABLE}"));
        line(&mut out, &format!("delete table {family} {TABLE}"));
    }
    out
}

/// The sets that depend on networks.
pub(super) fn networks(state: &FirewallState) -> String {
    let mut out = String::new();
    for (name, kind) in NETWORK_SETS {
        let all: BTreeSet<String> =
            state.networks.iter().flat_map(|network| of_network(network, name)).collect();
        out.push_str(&block("set", name, kind, all));
    }
    out
}

/// What one network puts in one of [`NETWORK_SETS`].
fn of_network(network: &NetworkWiring, set: &str) -> Vec<String> {
    let v6 = set.ends_with('6');
    let here = |net: &&IpNet| matches!(net, IpNet::V6(_)) == v6;
    let ranges: Vec<&IpNet> = network.ranges().filter(here).collect();
    let text = |net: &IpNet| net.trunc().to_string();
    let hides = network.masquerade && !network.internal;
    match set.trim_end_matches(['4', '6']) {
        "pods" => ranges.into_iter().map(text).collect(),
        "closed" if network.internal => ranges.into_iter().map(text).collect(),
        "masq" if hides => {
            network.subnets.iter().chain(&network.docker0).filter(here).map(text).collect()
        }
        "published" if network.published_only => ranges.into_iter().map(text).collect(),
        "own" => network.subnets.iter().chain(&network.docker0).filter(here).map(text).collect(),
        "cluster" if hides => network.cluster.iter().filter(here).map(text).collect(),
        "peers" => ranges
            .iter()
            .flat_map(|a| ranges.iter().map(move |b| format!("{} . {}", a.trunc(), b.trunc())))
            .collect(),
        "bridges" => network.bridge.iter().map(|b| format!("\"{0}\" . \"{0}\"", b.name)).collect(),
        _ => vec![],
    }
}

fn element(element: &Element) -> String {
    match element.data.as_slice() {
        [] => elements::text(&element.key),
        data => format!("{} : {}", elements::text(&element.key), elements::text(data)),
    }
}

fn block(
    keyword: &str,
    name: &str,
    kind: &str,
    elements: impl IntoIterator<Item = String>,
) -> String {
    let mut out = format!("\t{keyword} {name} {{\n");
    for part in kind.split("; ") {
        line(&mut out, &format!("\t\t{part}"));
    }
    let mut elements = elements.into_iter().peekable();
    if elements.peek().is_some() {
        line(&mut out, "\t\telements = {");
        for element in elements {
            line(&mut out, &format!("\t\t\t{element},"));
        }
        line(&mut out, "\t\t}");
    }
    line(&mut out, "\t}");
    out
}

fn line(out: &mut String, text: &str) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{text}");
}
