//! Results of ADD in the form of each version of the spec.

use netd_api::v1::{Dns, Endpoint};
use serde_json::{Map, Value, json};

use super::{config::PrevResult, version::SpecVersion};

/// The result of an ADD: what earlier plugins made, then netd's interfaces (the bridge
/// if there is one, the host's end, the sandbox's), addresses and routes.
pub fn render(
    endpoint: &Endpoint,
    netns: &str,
    prev: Option<PrevResult>,
    version: SpecVersion,
) -> Value {
    let prev = prev.unwrap_or_default();
    let mut interfaces = prev.interfaces;
    interfaces.extend(own_interfaces(endpoint, netns, version));
    // The sandbox's interface is the last.
    let index = interfaces.len() - 1;
    let mut ips = prev.ips;
    ips.extend(endpoint.addresses.iter().map(|a| ip(&a.address, &a.gateway, index, version)));
    let mut routes = prev.routes;
    routes.extend(endpoint.routes.iter().map(|r| match r.gateway.as_str() {
        "" => json!({ "dst": r.destination }),
        gateway => json!({ "dst": r.destination, "gw": gateway }),
    }));
    json!({
        "cniVersion": version.as_str(),
        "interfaces": interfaces,
        "ips": ips,
        "routes": routes,
        "dns": dns(endpoint.dns.as_ref(), prev.dns),
    })
}

fn own_interfaces(endpoint: &Endpoint, netns: &str, version: SpecVersion) -> Vec<Value> {
    let mut interfaces = Vec::with_capacity(3);
    if !endpoint.bridge.is_empty() {
        interfaces.push(json!({ "name": endpoint.bridge, "mac": endpoint.bridge_mac }));
    }
    let mut host = json!({ "name": endpoint.host_interface, "mac": endpoint.host_mac });
    let mut own = json!({ "name": endpoint.interface, "mac": endpoint.mac, "sandbox": netns });
    if version >= SpecVersion::V110 && endpoint.mtu != 0 {
        host["mtu"] = endpoint.mtu.into();
        own["mtu"] = endpoint.mtu.into();
    }
    interfaces.extend([host, own]);
    interfaces
}

/// An element of `ips`.
fn ip(address: &str, gateway: &str, interface: usize, version: SpecVersion) -> Value {
    let mut ip = json!({ "address": address, "interface": interface });
    if !gateway.is_empty() {
        ip["gateway"] = gateway.into();
    }
    version.shape_ip(&mut ip);
    ip
}

/// netd's settings, which are those of the request, over those of earlier plugins.
fn dns(own: Option<&Dns>, prev: Option<Value>) -> Value {
    let mut all = match prev {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let Some(own) = own else { return all.into() };
    let lists =
        [("nameservers", &own.nameservers), ("search", &own.search), ("options", &own.options)];
    for (key, values) in lists {
        if !values.is_empty() {
            all.insert(key.into(), values.clone().into());
        }
    }
    if !own.domain.is_empty() {
        all.insert("domain".into(), own.domain.clone().into());
    }
    all.into()
}
