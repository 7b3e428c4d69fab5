//! Reads netd's tables back from the kernel.

use std::{collections::BTreeSet, io, net::IpAddr};

use super::{
    attributes::{address, each, find, find_text, find_u32},
    elements::{self, Byset, Element, Encoded, Layer},
    message::{
        self, ATTR_DATA, ATTR_ELEMENTS, ATTR_KEY, ATTR_TABLE, ATTR_VALUE, GET_CHAIN,
        GET_GENERATION, GET_RULE, GET_SET, GET_SET_ELEMENT, GET_TABLE, NFGENMSG,
    },
    network_sets::{BRIDGES, INTERVAL_SETS},
    settings::TABLE,
};
use crate::{
    DataplaneError,
    netlink::{Batch, Socket},
};
use netd_domain::ids::fnv1a;

/// Tables, chains, rules, sets and the networks' elements as the kernel describes them. The
/// handles are included, so an object that was deleted and made again differs.
#[derive(Debug)]
pub(super) struct Fingerprint(Vec<Vec<u8>>);

impl Fingerprint {
    /// The same on every run for the same picture.
    pub(super) fn hash(&self) -> u64 {
        let mut all = Vec::new();
        for part in &self.0 {
            all.extend_from_slice(&(part.len() as u64).to_ne_bytes());
            all.extend_from_slice(part);
        }
        fnv1a(&all)
    }
}

/// `NFTA_SET_COUNT` and whatever comes after: changes with the elements.
const FIRST_VOLATILE_OF_SET: u16 = 20;

/// Reads the fingerprint; `None` when a table or a set is missing.
pub(super) fn fingerprint(socket: &mut Socket) -> Result<Option<Fingerprint>, DataplaneError> {
    let mut parts = Vec::new();
    for layer in [Layer::Inet, Layer::Bridge, Layer::Arp] {
        for what in [GET_TABLE, GET_CHAIN, GET_RULE, GET_SET] {
            // Chains and tables are given of the whole family, whatever is asked for.
            let asked = match what {
                GET_TABLE | GET_CHAIN => message::head(layer as u8),
                _ => message::of_table(layer),
            };
            let before = parts.len();
            for attributes in dump(socket, what, &asked)?.unwrap_or_default() {
                if find_text(&attributes, ATTR_TABLE) == Some(TABLE) {
                    parts.push(steady(what, layer, &attributes));
                }
            }
            if what == GET_TABLE && parts.len() == before {
                return Ok(None);
            }
        }
    }
    for name in INTERVAL_SETS.iter().map(|set| set.name).chain([BRIDGES.0]) {
        let Some(lists) = dump(socket, GET_SET_ELEMENT, &message::of_set(Layer::Inet, name))?
        else {
            return Ok(None);
        };
        parts.extend(lists.iter().flat_map(|list| raw_elements(list, name)));
    }
    parts.sort_unstable();
    Ok(Some(Fingerprint(parts)))
}

/// An object's description without the counters, which change by themselves.
fn steady(what: u16, layer: Layer, attributes: &[u8]) -> Vec<u8> {
    let mut part = vec![what as u8, layer as u8];
    for (kind, value) in each(attributes) {
        if what != GET_SET || kind < FIRST_VOLATILE_OF_SET {
            part.extend_from_slice(&kind.to_ne_bytes());
            part.extend_from_slice(&(value.len() as u32).to_ne_bytes());
            part.extend_from_slice(value);
        }
    }
    part
}

fn raw_elements(list: &[u8], set: &str) -> Vec<Vec<u8>> {
    let elements = find(list, ATTR_ELEMENTS).unwrap_or_default();
    each(elements).map(|(_, one)| [set.as_bytes(), &[0], one].concat()).collect()
}

/// Whether the endpoints' sets hold exactly what is wanted.
pub(super) fn holds_exactly(socket: &mut Socket, wanted: &Byset) -> Result<bool, DataplaneError> {
    for (set, elements) in wanted {
        if elements_of(socket, set.layer, set.name)? != Some(elements::encoded(elements)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keys and data of what a set or a map holds; `None`: it is missing.
pub(super) fn elements_of(
    socket: &mut Socket,
    layer: Layer,
    set: &str,
) -> Result<Option<BTreeSet<Encoded>>, DataplaneError> {
    let lists = dump(socket, GET_SET_ELEMENT, &message::of_set(layer, set))?;
    Ok(lists.map(|lists| lists.iter().flat_map(|list| decode(list)).collect()))
}

/// Keys and data of a list of elements.
pub(super) fn decode(list: &[u8]) -> Vec<Encoded> {
    let value =
        |one, kind| find(one, kind).and_then(|v| find(v, ATTR_VALUE)).unwrap_or_default().to_vec();
    let elements = find(list, ATTR_ELEMENTS).unwrap_or_default();
    each(elements).map(|(_, one)| (value(one, ATTR_KEY), value(one, ATTR_DATA))).collect()
}

/// The addresses in a set of `inet netd`; `None`: the set is missing.
pub(super) fn addresses(
    socket: &mut Socket,
    set: &str,
) -> Result<Option<Vec<IpAddr>>, DataplaneError> {
    let held = elements_of(socket, Layer::Inet, set)?;
    Ok(held.map(|held| held.iter().filter_map(|(key, _)| address(key)).collect()))
}

/// The data that a map has for the element's key; `None`: the key is not in it.
pub(super) fn lookup(
    socket: &mut Socket,
    element: &Element,
) -> Result<Option<Vec<u8>>, DataplaneError> {
    let body = message::of_element(element, false);
    let answer = ask(socket, GET_SET_ELEMENT, &body)?;
    Ok(answer.and_then(|list| decode(&list).pop()).map(|(_, data)| data))
}

/// The ruleset's generation, which every transaction of any program increases by one.
pub(super) fn generation(socket: &mut Socket) -> Result<u32, DataplaneError> {
    /// `NFTA_GEN_ID`
    const ID: u16 = 1;
    let answer = ask(socket, GET_GENERATION, &message::head(0))?.unwrap_or_default();
    find_u32(&answer, ID).ok_or_else(|| failed(&"no generation in the kernel's answer"))
}

/// Asks for one object; its attributes, or `None` when there is no such thing.
fn ask(socket: &mut Socket, what: u16, body: &[u8]) -> Result<Option<Vec<u8>>, DataplaneError> {
    let mut batch = Batch::new();
    batch.raw(message::kind(what), libc::NLM_F_ACK as u16, body);
    let (results, mut answers) = socket.exchange(batch).map_err(|e| failed(&e))?;
    match results.into_iter().find_map(Result::err) {
        Some(refusal) if refusal.errno == libc::ENOENT => Ok(None),
        Some(refusal) => Err(failed(&refusal)),
        None => {
            let answer = answers.pop();
            Ok(answer.map(|a| a.body().get(NFGENMSG..).unwrap_or_default().to_vec()))
        }
    }
}

/// The attributes of every object of a kind; `None` when what they belong to is missing.
pub(super) fn dump(
    socket: &mut Socket,
    what: u16,
    body: &[u8],
) -> Result<Option<Vec<Vec<u8>>>, DataplaneError> {
    const TRIES: usize = 8;
    let mut last = io::Error::from_raw_os_error(libc::EINTR);
    for _ in 0..TRIES {
        match socket.dump_raw(message::kind(what), body) {
            Ok(all) => {
                let attributes = |m: &crate::netlink::Received| {
                    m.body().get(NFGENMSG..).unwrap_or_default().to_vec()
                };
                return Ok(Some(all.iter().map(attributes).collect()));
            }
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
            // No errno of the kernel's: changed while it was read.
            Err(e) if e.raw_os_error().is_none() => last = e,
            Err(e) => return Err(failed(&e)),
        }
    }
    Err(failed(&last))
}

fn failed(why: &dyn std::fmt::Display) -> DataplaneError {
    DataplaneError::Io { what: "reading the nftables tables".into(), reason: why.to_string() }
}
