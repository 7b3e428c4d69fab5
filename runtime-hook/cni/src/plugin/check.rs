//! CHECK: whether the runtime remembers what netd gave the pod. That it is there and works is
//! netd's part of it.
//!
//! `prevResult` is the result of the whole chain: plugins that came after netd may have changed
//! the pod's MAC and MTU in it, added addresses, and removed or added routes.

use std::net::IpAddr;

use netd_api::v1::Endpoint;
use serde_json::Value;

use super::config::PrevResult;
use crate::error::shown;

/// What of netd's is not in `prev`, in words.
pub fn differences(endpoint: &Endpoint, prev: &PrevResult) -> Vec<String> {
    let mut found = Vec::new();
    let index = interfaces(endpoint, prev, &mut found);
    if let Some(index) = index {
        addresses(endpoint, index, prev, &mut found);
    }
    found
}

/// Compares the interfaces; the index of the sandbox's. That one is known by its name alone: the
/// path of its namespace has several spellings (/var/run is /run), and netd compares the
/// namespace itself.
fn interfaces(endpoint: &Endpoint, prev: &PrevResult, found: &mut Vec<String>) -> Option<usize> {
    let sandbox = |v: &Value| !text(v, "sandbox").is_empty();
    let named = |name: &str, inside: bool| {
        prev.interfaces.iter().position(|v| text(v, "name") == name && sandbox(v) == inside)
    };
    let mut on_host = vec![(endpoint.host_interface.as_str(), endpoint.host_mac.as_str())];
    if !endpoint.bridge.is_empty() {
        on_host.push((&endpoint.bridge, &endpoint.bridge_mac));
    }
    let missing = |name: &str| format!("interface {name} is not in prevResult");
    for (name, mac) in on_host {
        let Some(there) = named(name, false).and_then(|i| prev.interfaces.get(i)) else {
            found.push(missing(name));
            continue;
        };
        let known = text(there, "mac");
        if !known.is_empty() && !known.eq_ignore_ascii_case(mac) {
            found.push(format!("interface {name} has MAC {mac}, prevResult {}", shown(known)));
        }
    }
    let index = named(&endpoint.interface, true);
    if index.is_none() {
        found.push(missing(&endpoint.interface));
    }
    index
}

fn addresses(endpoint: &Endpoint, index: usize, prev: &PrevResult, found: &mut Vec<String>) {
    let ours = |v: &&Value| v.get("interface").and_then(Value::as_u64) == Some(index as u64);
    let mut known: Vec<&Value> = prev.ips.iter().filter(ours).collect();
    let mut missing = false;
    for address in &endpoint.addresses {
        let same = |v: &&Value| same_cidr(text(v, "address"), &address.address);
        let Some(at) = known.iter().position(same) else {
            missing = true;
            found.push(format!("address {} is not in prevResult", address.address));
            continue;
        };
        let gateway = text(known.swap_remove(at), "gateway");
        if !same_ip(gateway, &address.gateway) {
            let shown = shown(gateway);
            found.push(format!(
                "address {} has gateway \"{}\", prevResult {shown}",
                address.address, address.gateway
            ));
        }
    }
    // Where netd's own are complete, another plugin has added these.
    let foreign = known.iter().filter(|_| missing).map(|v| shown(text(v, "address")));
    found.extend(foreign.map(|address| format!("netd does not know address {address}")));
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Addresses have several spellings.
fn same_ip(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

fn same_cidr(a: &str, b: &str) -> bool {
    match (a.split_once('/'), b.split_once('/')) {
        (Some((a, n)), Some((b, m))) => n == m && same_ip(a, b),
        _ => a == b,
    }
}
