//! The text, to the letter.

use std::collections::BTreeSet;

use super::samples::{mixed, node};
use crate::{
    DataplaneError,
    firewall::{FirewallSettings, FirewallState, text},
};

#[test]
fn the_text_of_all_tables_is_as_reviewed() {
    let got = text::ruleset(&FirewallSettings::default(), &mixed(), &node(), None).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/firewall/tests/golden.nft");
        std::fs::write(path, &got).unwrap();
    }
    assert_eq!(got, include_str!("golden.nft"));
}

#[test]
fn order_of_networks_and_endpoints_does_not_matter() {
    let (settings, mut state) = (FirewallSettings::default(), mixed());
    let before = text::ruleset(&settings, &state, &node(), None).unwrap();
    state.networks.reverse();
    state.endpoints.reverse();
    assert_eq!(text::ruleset(&settings, &state, &node(), None).unwrap(), before);
}

#[test]
fn marks_are_as_set() {
    let settings =
        FirewallSettings { hostport_mark: 0x10, kube_proxy_mark: 0x20, ..Default::default() };
    let text = text::ruleset(&settings, &FirewallState::default(), &BTreeSet::new(), None).unwrap();
    assert!(text.contains("ct mark set ct mark | 0x00000010"));
    assert!(text.contains("ct mark set ct mark & 0xffffffef"));
    assert!(text.contains("meta mark & 0x00000020 != 0 return"));
    assert!(!text.contains('@') || !text.contains("@PORT@"));
}

#[test]
fn two_endpoints_with_one_host_port_are_refused_by_the_ports_name() {
    let mut state = mixed();
    let mut other = (*state.endpoints[1]).clone();
    other.port_mappings = state.endpoints[0].port_mappings.clone();
    state.endpoints.push(std::sync::Arc::new(other));
    let error = text::ruleset(&FirewallSettings::default(), &state, &node(), None).unwrap_err();
    assert!(matches!(error, DataplaneError::PortTaken { port } if port.to_string() == "8080/tcp"));
}
