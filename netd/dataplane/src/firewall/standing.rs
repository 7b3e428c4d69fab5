//! `inet netd` as it stands, which new rules are put into without taking it down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
};

use super::{
    attributes::{address, each, find, find_text, find_u32},
    elements::{Byset, Element, Layer},
    inspect::dump,
    message::{
        self, ATTR_ELEMENTS, ATTR_KEY, ATTR_TABLE, ATTR_VALUE, CHAIN_NAME, GET_CHAIN, GET_SET,
        GET_SET_ELEMENT, GET_TABLE, MAP, SET_FLAGS,
    },
    network_sets::{self, INTERVAL_SETS, IntervalSet, Ranges},
    port_maps::PortMaps,
    settings::{FirewallState, TABLE},
};
use crate::{DataplaneError, netlink::Socket};

/// `NFTA_TABLE_FLAGS`: dormant, owned by a program.
const TABLE_FLAGS: u16 = 2;
/// `NFTA_SET_NAME`, `_KEY_LEN`
const SET_NAME: u16 = 2;
const SET_KEY_LENGTH: u16 = 5;
/// `NFT_SET_ANONYMOUS`, `_INTERVAL`, `_CONCAT`
const ANONYMOUS: u32 = 0x1;
const INTERVAL: u32 = 0x4;
const CONCATENATED: u32 = 0x80;
/// `NFTA_SET_ELEM_FLAGS` and `NFT_SET_ELEM_INTERVAL_END`: the first key after an interval.
const ELEMENT_FLAGS: u16 = 3;
const INTERVAL_END: u32 = 1;
/// `NFTA_SET_ELEM_KEY_END`: the last key of an interval.
const ELEMENT_KEY_END: u16 = 10;

/// Nothing, or a table of whatever release that new rules can be put into: chains and other sets
/// by name, and the elements of the sets of intervals and the maps of host ports.
#[derive(Debug, Default)]
pub(super) struct Standing {
    chains: Vec<String>,
    sets: Vec<String>,
    maps: Vec<String>,
    intervals: BTreeMap<&'static str, BTreeSet<Ranges>>,
    ports: PortMaps,
}

impl Standing {
    /// Whether the set has this element.
    pub(super) fn holds(&self, set: &IntervalSet, ranges: &Ranges) -> bool {
        self.intervals.get(set.name).is_some_and(|all| all.contains(ranges))
    }

    /// Whether the set is there.
    pub(super) fn has(&self, set: &IntervalSet) -> bool {
        self.intervals.contains_key(set.name)
    }

    /// Whether a map of host ports has this element.
    pub(super) fn has_port(&self, element: &Element) -> bool {
        self.ports.holds(element)
    }

    /// Takes out, as nft reads it, all but the sets of intervals, the maps of host ports and what
    /// they should hold.
    pub(super) fn removal(&self, state: &FirewallState, changing: &Byset) -> String {
        let mut out = format!("flush table inet {TABLE}\n");
        let mut delete = |what: &str, rest: &str| {
            // Writing to a String can't fail.
            let _ = writeln!(out, "delete {what} inet {TABLE} {rest}");
        };
        self.maps.iter().for_each(|name| delete("map", name));
        self.sets.iter().for_each(|name| delete("set", name));
        self.chains.iter().for_each(|name| delete("chain", name));
        for set in &INTERVAL_SETS {
            let wanted = network_sets::ranges(state, set);
            let held = self.intervals.get(set.name).into_iter().flatten();
            for stale in held.filter(|ranges| !wanted.contains(*ranges)) {
                delete("element", &format!("{} {{ {} }}", set.name, network_sets::text(stale)));
            }
        }
        for (map, stale) in self.ports.stale(changing) {
            delete("element", &format!("{map} {{ {stale} }}"));
        }
        out
    }
}

/// Reads what stands there. `None`: a table that has to go first, because it is dormant or has
/// other sets under the names of ours.
///
/// # Errors
/// `Io`: the kernel's tables can't be read.
pub(super) fn read(socket: &mut Socket) -> Result<Option<Standing>, DataplaneError> {
    let tables = dump(socket, GET_TABLE, &message::head(Layer::Inet as u8))?.unwrap_or_default();
    let mut standing = Standing::default();
    match tables.iter().find(|table| is_ours(table)) {
        None => return Ok(Some(standing)),
        Some(table) if find_u32(table, TABLE_FLAGS) != Some(0) => return Ok(None),
        Some(_) => {}
    }
    // Chains are given of the whole family, whatever is asked for.
    let chains = dump(socket, GET_CHAIN, &message::head(Layer::Inet as u8))?.unwrap_or_default();
    let names =
        chains.iter().filter(|chain| is_ours(chain)).filter_map(|c| find_text(c, CHAIN_NAME));
    standing.chains = names.map(str::to_owned).collect();
    for set in dump(socket, GET_SET, &message::of_table(Layer::Inet))?.unwrap_or_default() {
        let name = find_text(&set, SET_NAME).unwrap_or_default();
        let flags = find_u32(&set, SET_FLAGS).unwrap_or_default();
        match INTERVAL_SETS.iter().find(|ours| ours.name == name) {
            Some(ours) if is_fit(ours, &set, flags) => {
                let asked = message::of_set(Layer::Inet, name);
                let lists = dump(socket, GET_SET_ELEMENT, &asked)?.unwrap_or_default();
                standing.intervals.insert(ours.name, intervals(ours, &lists));
            }
            Some(_) => return Ok(None),
            None if flags & ANONYMOUS != 0 => {}
            None if standing.ports.keep(socket, name, &set)? => {}
            None if flags & MAP != 0 => standing.maps.push(name.to_owned()),
            None => standing.sets.push(name.to_owned()),
        }
    }
    Ok(Some(standing))
}

fn is_ours(attributes: &[u8]) -> bool {
    find_text(attributes, ATTR_TABLE) == Some(TABLE)
}

fn is_fit(ours: &IntervalSet, set: &[u8], flags: u32) -> bool {
    let expected = if ours.pairs { INTERVAL | CONCATENATED } else { INTERVAL };
    let length = address_length(ours) * (1 + usize::from(ours.pairs));
    flags == expected && find_u32(set, SET_KEY_LENGTH) == u32::try_from(length).ok()
}

fn address_length(set: &IntervalSet) -> usize {
    if set.v6 { 16 } else { 4 }
}

/// The elements of one of our sets. What can't be read is left out: then nft refuses to put
/// it in again, and the table is made from nothing.
fn intervals(set: &IntervalSet, lists: &[Vec<u8>]) -> BTreeSet<Ranges> {
    let elements = || lists.iter().flat_map(|list| each(find(list, ATTR_ELEMENTS).unwrap_or(&[])));
    let key = |element, kind| {
        let bytes = find(element, kind).and_then(|key| find(key, ATTR_VALUE))?;
        bytes.chunks(address_length(set)).map(address).collect::<Option<Vec<IpAddr>>>()
    };
    let is_end =
        |element: &[u8]| find_u32(element, ELEMENT_FLAGS).is_some_and(|f| f & INTERVAL_END != 0);
    let ends: BTreeSet<IpAddr> = elements()
        .filter(|(_, element)| is_end(element))
        .filter_map(|(_, element)| key(element, ATTR_KEY)?.first().copied())
        .collect();
    let mut found = BTreeSet::new();
    for (_, element) in elements().filter(|(_, element)| !is_end(element)) {
        let Some(first) = key(element, ATTR_KEY) else { continue };
        // One range has the first address after it as an element of its own, or none when
        // it goes up to the last address there is.
        let last = key(element, ELEMENT_KEY_END).or_else(|| {
            let after = ends.range(first.first()?..).find(|end| Some(*end) > first.first());
            Some(vec![after.map_or_else(|| highest(set), |end| before(*end))])
        });
        found.extend(last.map(|last| first.into_iter().zip(last).collect::<Ranges>()));
    }
    found
}

fn highest(set: &IntervalSet) -> IpAddr {
    if set.v6 { [0xff; 16].into() } else { [0xff; 4].into() }
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_sub(1)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_sub(1)).into()),
    }
}
