//! CHECK: whether what the runtime remembers is what netd says there is. That the
//! kernel agrees with netd is netd's part of it.

use std::net::IpAddr;

use netd_api::v1::Endpoint;
use serde_json::Value;

use super::config::PrevResult;
use crate::error::shown;

/// Every difference, in words. Interfaces, addresses and routes that other plugins of
/// the chain made are none.
pub fn differences(endpoint: &Endpoint, netns: &str, prev: &PrevResult) -> Vec<String> {
    let mut found = Vec::new();
    let index = interfaces(endpoint, netns, prev, &mut found);
    if let Some(index) = index {
        addresses(endpoint, index, prev, &mut found);
    }
    routes(endpoint, prev, &mut found);
    found
}

/// Compares the interfaces; the index of the sandbox's.
fn interfaces(
    endpoint: &Endpoint,
    netns: &str,
    prev: &PrevResult,
    found: &mut Vec<String>,
) -> Option<usize> {
    let sandbox = |v: &Value| !text(v, "sandbox").is_empty();
    let named = |name: &str, inside: bool| {
        prev.interfaces.iter().position(|v| text(v, "name") == name && sandbox(v) == inside)
    };
    let mut wanted = vec![
        (endpoint.host_interface.as_str(), endpoint.host_mac.as_str(), false),
        (endpoint.interface.as_str(), endpoint.mac.as_str(), true),
    ];
    if !endpoint.bridge.is_empty() {
        wanted.push((&endpoint.bridge, &endpoint.bridge_mac, false));
    }
    for (name, mac, inside) in wanted {
        let Some(there) = named(name, inside).and_then(|i| prev.interfaces.get(i)) else {
            found.push(format!("interface {name} is not in prevResult"));
            continue;
        };
        let known = text(there, "mac");
        if !known.is_empty() && !known.eq_ignore_ascii_case(mac) {
            found.push(format!("interface {name} has MAC {mac}, prevResult {}", shown(known)));
        }
        let path = text(there, "sandbox");
        if inside && path != netns {
            found.push(format!("{name} is in {netns}, prevResult says {}", shown(path)));
        }
        let mtu = there.get("mtu").and_then(Value::as_u64).unwrap_or(0);
        if inside && mtu != 0 && mtu != u64::from(endpoint.mtu) {
            found.push(format!("{name} has MTU {}, prevResult {mtu}", endpoint.mtu));
        }
    }
    named(&endpoint.interface, true)
}

fn addresses(endpoint: &Endpoint, index: usize, prev: &PrevResult, found: &mut Vec<String>) {
    let ours = |v: &&Value| v.get("interface").and_then(Value::as_u64) == Some(index as u64);
    let mut known: Vec<&Value> = prev.ips.iter().filter(ours).collect();
    for address in &endpoint.addresses {
        let same = |v: &&Value| same_cidr(text(v, "address"), &address.address);
        let Some(at) = known.iter().position(same) else {
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
    let gone = known.iter().map(|v| shown(text(v, "address")));
    found.extend(gone.map(|address| format!("netd does not know address {address}")));
}

fn routes(endpoint: &Endpoint, prev: &PrevResult, found: &mut Vec<String>) {
    for route in &endpoint.routes {
        let same = |v: &&Value| {
            same_cidr(text(v, "dst"), &route.destination) && same_ip(text(v, "gw"), &route.gateway)
        };
        if !prev.routes.iter().any(|v| same(&v)) {
            let via = if route.gateway.is_empty() { "on link" } else { route.gateway.as_str() };
            found.push(format!("route {} ({via}) is not in prevResult", route.destination));
        }
    }
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
