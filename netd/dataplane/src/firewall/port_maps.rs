//! The maps of host ports as they stand, which new rules are put in around.
//!
//! The kernel takes a map's elements away in the moment that the new rules are there: a packet
//! that the old rules look at just then finds no port, and its connection is refused.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    attributes::{address, find, find_u32},
    elements::{self, Byset, CHANGING_SETS, Element, Encoded, Layer, Part, SetId},
    inspect,
    message::{MAP, SET_FLAGS},
};
use crate::{DataplaneError, netlink::Socket};
use netd_domain::Protocol;

/// `NFTA_SET_KEY_TYPE`, `_DATA_TYPE`, `_DESC`, and in it `NFTA_SET_DESC_SIZE`
const SET_KEY_TYPE: u16 = 4;
const SET_DATA_TYPE: u16 = 6;
const SET_DESCRIPTION: u16 = 9;
const SIZE: u16 = 1;
/// nft's numbers of the fields' types, and the bits that each takes in a concatenation's.
const IPV4: u32 = 7;
const IPV6: u32 = 8;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const TYPE_BITS: u32 = 6;

/// What the maps hold that can stay.
#[derive(Debug, Default)]
pub(super) struct PortMaps(BTreeMap<SetId, BTreeSet<Encoded>>);

impl PortMaps {
    /// Reads a map of `inet netd`, which then stays. `false`: it is none of ours, or not as
    /// this release makes it.
    ///
    /// # Errors
    /// `Io`: its elements can't be read.
    pub(super) fn keep(
        &mut self,
        socket: &mut Socket,
        name: &str,
        attributes: &[u8],
    ) -> Result<bool, DataplaneError> {
        let Some(map) = ours(name).filter(|map| is_fit(map.name, attributes)) else {
            return Ok(false);
        };
        let held = inspect::elements_of(socket, map.layer, map.name)?.unwrap_or_default();
        if held.iter().any(|mapping| text(mapping).is_none()) {
            return Ok(false);
        }
        self.0.insert(map, held);
        Ok(true)
    }

    pub(super) fn holds(&self, element: &Element) -> bool {
        let encoded = || (elements::bytes(&element.key), elements::bytes(&element.data));
        self.0.get(&element.set).is_some_and(|held| held.contains(&encoded()))
    }

    /// Names of maps, and what they should not hold, as nft reads it.
    pub(super) fn stale(&self, wanted: &Byset) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        for (map, held) in &self.0 {
            let wanted = wanted.get(map).map(elements::encoded).unwrap_or_default();
            all.extend(held.difference(&wanted).filter_map(|stale| Some((map.name, text(stale)?))));
        }
        all
    }
}

/// The map of this name.
fn ours(name: &str) -> Option<SetId> {
    let mut maps = CHANGING_SETS.iter().filter(|(_, kind)| elements::is_map(kind));
    maps.find(|(map, _)| map.layer == Layer::Inet && map.name == name).map(|(map, _)| *map)
}

/// Of the types that we give it, and without a limit of its size.
fn is_fit(name: &str, attributes: &[u8]) -> bool {
    let address = if name.ends_with('6') { IPV6 } else { IPV4 };
    let host = if name.starts_with("bound") { address } else { 0 };
    let concatenated = |fields: &[u32]| fields.iter().fold(0, |all, one| (all << TYPE_BITS) | one);
    let description = find(attributes, SET_DESCRIPTION).unwrap_or_default();
    find_u32(attributes, SET_FLAGS) == Some(MAP)
        && find_u32(attributes, SET_KEY_TYPE) == Some(concatenated(&[host, PROTOCOL, PORT]))
        && find_u32(attributes, SET_DATA_TYPE) == Some(concatenated(&[address, PORT]))
        && find(description, SIZE).is_none()
}

fn text((key, data): &Encoded) -> Option<String> {
    let (host, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let [protocol, _, _, _, port @ .., _, _] = rest else { return None };
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|known| elements::number(*known) == *protocol)?;
    let mut key = vec![];
    if !host.is_empty() {
        key.push(Part::Ip(address(host)?));
    }
    key.extend([Part::Protocol(protocol), part_of(port)?]);
    let (pod, port) = data.split_at_checked(data.len().checked_sub(4)?)?;
    let data = [Part::Ip(address(pod)?), part_of(port.get(..2)?)?];
    Some(format!("{} : {}", elements::text(&key), elements::text(&data)))
}

fn part_of(port: &[u8]) -> Option<Part> {
    Some(Part::Port(u16::from_be_bytes(port.try_into().ok()?)))
}
