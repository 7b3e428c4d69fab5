//! For fuzzing.

use std::collections::BTreeSet;

use super::{
    attributes::{each, find_text, find_u32},
    conntrack, elements, inspect,
    message::NFGENMSG,
    settings::{FirewallSettings, FirewallState},
    text, watch,
};
use crate::netlink::Received;

/// A message of the kernel's through every reader of nftables' and conntrack's.
pub(crate) fn fuzz(message: &Received) {
    let attributes = message.body().get(NFGENMSG..).unwrap_or_default();
    let _ = (watch::touches_us(message), inspect::decode(attributes));
    for (kind, value) in each(attributes) {
        let _ = (find_text(value, kind), find_u32(attributes, kind), each(value).count());
    }
    conntrack::fuzz(message.body());
}

/// The text for `nft`, which has to have as many elements as the sets.
pub(crate) fn fuzz_state(settings: &FirewallSettings, state: &FirewallState) {
    let Ok(sets) = elements::of_state(state, &BTreeSet::new()) else { return };
    for element in sets.values().flat_map(|set| set.values()) {
        assert_eq!(elements::bytes(&element.key).len() % 4, 0);
        let _ = element.describe();
    }
    let Ok(ruleset) = text::ruleset(settings, state, &BTreeSet::new(), None) else { return };
    let quotes = ruleset.bytes().filter(|b| *b == b'"').count();
    assert_eq!(quotes % 2, 0, "a name breaks out of its quotes");
}
