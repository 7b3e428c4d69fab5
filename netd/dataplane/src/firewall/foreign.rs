//! Other tables' chains that drop forwarded packets by default.

use super::{
    attributes::{find, find_text, find_u32},
    inspect::dump,
    message::{self, CHAIN_NAME, GET_CHAIN},
    settings::TABLE,
};
use crate::{DataplaneError, netlink::Socket};

/// `NFTA_CHAIN_TABLE`, `_HOOK`, `_POLICY`, and `NFTA_HOOK_HOOKNUM`.
const CHAIN_TABLE: u16 = 1;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const HOOK_NUMBER: u16 = 1;
/// `NF_INET_FORWARD`; bridge's forward hook has the same number.
const FORWARD: u32 = 2;
/// `NF_DROP`
const DROP: u32 = 0;
/// Families that pods' packets pass: NFPROTO_INET, _IPV4, _BRIDGE, _IPV6.
const FAMILIES: [(u8, &str); 4] = [(1, "inet"), (2, "ip"), (7, "bridge"), (10, "ip6")];

pub(super) fn forward_drops(socket: &mut Socket) -> Result<Vec<String>, DataplaneError> {
    let mut drops = Vec::new();
    for (family, word) in FAMILIES {
        for chain in dump(socket, GET_CHAIN, &message::head(family))?.unwrap_or_default() {
            let table = find_text(&chain, CHAIN_TABLE).unwrap_or_default();
            let name = find_text(&chain, CHAIN_NAME).unwrap_or_default();
            let hook = find(&chain, CHAIN_HOOK).and_then(|h| find_u32(h, HOOK_NUMBER));
            let policy = find_u32(&chain, CHAIN_POLICY);
            if table != TABLE && hook == Some(FORWARD) && policy == Some(DROP) {
                drops.push(format!("{word} {table} {name} (policy drop)"));
            }
        }
    }
    Ok(drops)
}
