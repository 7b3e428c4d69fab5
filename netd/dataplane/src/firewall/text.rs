//! The tables as `nft -f` reads them: a pure function of settings, networks and
//! endpoints and what stands there, the same for the same content in whatever order it comes.

use std::{collections::BTreeSet, fmt::Write as _, net::IpAddr};

use super::{
    elements::{self, CHANGING_SETS, Element, Layer},
    network_sets::{self, BRIDGES, INTERVAL_SETS, IntervalSet},
    rules,
    settings::{FirewallSettings, FirewallState, TABLE},
    standing::Standing,
};
use crate::DataplaneError;

const FAMILIES: [(Layer, &str); 3] =
    [(Layer::Inet, "inet"), (Layer::Bridge, "bridge"), (Layer::Arp, "arp")];

/// What changes neither with the endpoints nor with the node's addresses.
pub(super) fn base(
    settings: &FirewallSettings,
    state: &FirewallState,
) -> Result<String, DataplaneError> {
    let networks = state.networks.clone();
    let state = FirewallState { networks, endpoints: Vec::new() };
    ruleset(settings, &state, &BTreeSet::new(), None)
}

/// All tables in one transaction, which deletes what is there first: all of it, or what
/// `standing` does not keep.
///
/// # Errors
/// `PortTaken` when two endpoints want one host port.
pub(super) fn ruleset(
    settings: &FirewallSettings,
    state: &FirewallState,
    node: &BTreeSet<IpAddr>,
    standing: Option<&Standing>,
) -> Result<String, DataplaneError> {
    let changing = elements::of_state(state, node)?;
    let mut out = String::new();
    for (layer, family) in FAMILIES {
        match standing {
            Some(standing) if layer == Layer::Inet => {
                out.push_str(&standing.removal(state, &changing))
            }
            _ => out.push_str(&removal_of(family)),
        }
    }
    for (layer, family) in FAMILIES {
        open(&mut out, family);
        if layer == Layer::Inet {
            INTERVAL_SETS.iter().for_each(|s| out.push_str(&interval_set(s, state, standing)));
            out.push_str(&block("set", BRIDGES.0, BRIDGES.1, network_sets::bridges(state)));
        }
        for (set, kind) in CHANGING_SETS.iter().filter(|(set, _)| set.layer == layer) {
            let all = changing.get(set).into_iter().flat_map(|all| all.values());
            let all = all.filter(|one| standing.is_none_or(|standing| !standing.has_port(one)));
            let keyword = if elements::is_map(kind) { "map" } else { "set" };
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

/// The sets of intervals that are not there yet, if any.
pub(super) fn missing_intervals(state: &FirewallState, standing: &Standing) -> Option<String> {
    let missing = INTERVAL_SETS.iter().filter(|set| !standing.has(set));
    let sets: String = missing.map(|set| interval_set(set, state, None)).collect();
    if sets.is_empty() {
        return None;
    }
    let mut out = String::new();
    open(&mut out, "inet");
    out.push_str(&sets);
    line(&mut out, "}");
    Some(out)
}

/// Deletes the tables, whether they exist or not.
#[cfg(test)]
pub(super) fn removal() -> String {
    FAMILIES.iter().map(|(_, family)| removal_of(family)).collect()
}

fn removal_of(family: &str) -> String {
    format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n")
}

fn open(out: &mut String, family: &str) {
    line(out, &format!("table {family} {TABLE} {{"));
    line(out, "\tcomment \"made by netd, which undoes changes made by hand\"");
}

/// A set with the elements that are not in it yet.
fn interval_set(set: &IntervalSet, state: &FirewallState, standing: Option<&Standing>) -> String {
    let mut wanted = network_sets::ranges(state, set);
    if let Some(standing) = standing {
        wanted.retain(|ranges| !standing.holds(set, ranges));
    }
    let kind = format!("{}; flags interval", set.kind);
    block("set", set.name, &kind, wanted.iter().map(network_sets::text))
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
