//! nf_tables messages (uapi/linux/netfilter/nf_tables.h, nfnetlink.h). Pure.

use super::{
    attributes::{nest, put, put_text},
    elements::{Element, Layer, SetId, bytes},
    settings::TABLE,
};
use crate::netlink::Batch;

/// `NFNL_SUBSYS_NFTABLES`
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Message types, `NFT_MSG_*`.
pub(super) const GET_TABLE: u16 = 1;
pub(super) const GET_CHAIN: u16 = 4;
pub(super) const GET_RULE: u16 = 7;
pub(super) const GET_SET: u16 = 10;
pub(super) const NEW_SET_ELEMENT: u16 = 12;
pub(super) const GET_SET_ELEMENT: u16 = 13;
pub(super) const DELETE_SET_ELEMENT: u16 = 14;
pub(super) const NEW_GENERATION: u16 = 15;
pub(super) const GET_GENERATION: u16 = 16;
/// Linux 6.3; as delete, but what is missing is fine.
pub(super) const DESTROY_SET_ELEMENT: u16 = 30;

/// Size of `struct nfgenmsg`, which starts every body.
pub(super) const NFGENMSG: usize = 4;
/// The table's name: the same number for tables, chains, rules, sets and elements.
pub(super) const ATTR_TABLE: u16 = 1;
/// `NFTA_CHAIN_NAME`
pub(super) const CHAIN_NAME: u16 = 3;
/// `NFTA_SET_FLAGS`, and `NFT_SET_MAP` of them
pub(super) const SET_FLAGS: u16 = 3;
pub(super) const MAP: u32 = 0x8;
/// `NFTA_SET_ELEM_LIST_SET`, `..._ELEMENTS`
const ATTR_SET: u16 = 2;
pub(super) const ATTR_ELEMENTS: u16 = 3;
/// `NFTA_LIST_ELEM`
const ATTR_ELEMENT: u16 = 1;
/// `NFTA_SET_ELEM_KEY`, `NFTA_SET_ELEM_DATA`
pub(super) const ATTR_KEY: u16 = 1;
pub(super) const ATTR_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`
pub(super) const ATTR_VALUE: u16 = 1;

/// A message's type with its subsystem.
pub(super) const fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

/// A body with nothing but its family; 0 is every family.
pub(super) fn head(family: u8) -> Vec<u8> {
    vec![family, 0, 0, 0]
}

/// A body that names a table of ours, and a set.
pub(super) fn of_table(layer: Layer) -> Vec<u8> {
    let mut body = head(layer as u8);
    put_text(&mut body, ATTR_TABLE, TABLE);
    body
}

pub(super) fn of_set(layer: Layer, name: &str) -> Vec<u8> {
    let mut body = of_table(layer);
    put_text(&mut body, ATTR_SET, name);
    body
}

/// A body that names one element; its data only `with_data`.
pub(super) fn of_element(element: &Element, with_data: bool) -> Vec<u8> {
    let SetId { layer, name } = element.set;
    let mut body = of_set(layer, name);
    nest(&mut body, ATTR_ELEMENTS, |list| {
        nest(list, ATTR_ELEMENT, |one| {
            nest(one, ATTR_KEY, |key| put(key, ATTR_VALUE, &bytes(&element.key)));
            if with_data && !element.data.is_empty() {
                nest(one, ATTR_DATA, |data| put(data, ATTR_VALUE, &bytes(&element.data)));
            }
        });
    });
    body
}

/// A transaction: all or nothing. Only the last change asks for an answer: refusals
/// of earlier ones come before it, and each answer costs a system call.
pub(super) fn transaction(changes: &[(u16, u16, Vec<u8>)]) -> Batch {
    let mut batch = Batch::transaction();
    let edge = [0, 0, 0, SUBSYSTEM as u8];
    batch.raw(BATCH_BEGIN, 0, &edge);
    for (i, (message, flags, body)) in changes.iter().enumerate() {
        let last = i + 1 == changes.len();
        let ack = if last { libc::NLM_F_ACK as u16 } else { 0 };
        batch.raw(kind(*message), flags | ack, body);
    }
    batch.raw(BATCH_END, 0, &edge);
    batch
}
