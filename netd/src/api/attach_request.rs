//! Turns an AttachRequest into an AttachSpec. All wrong fields are reported at once.

#[cfg(test)]
mod tests;
pub(crate) mod texts;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use netd_api::v1;

use crate::node::now_boot;
use netd_domain::{
    AttachSpec, Bandwidth, DefaultRoute, Dns, EndpointKey, IfName, Invalid, Mac, NetworkName,
    PodIdentity, PortMapping, Protocol, SandboxId,
    ids::DEFAULT_IFNAME,
    port_mapping::{self, port_number},
};

const MAX_PORTS: usize = 1024;
const MAX_DNS_ENTRIES: usize = 64;
/// Bytes of one entry of the DNS settings; a domain name has at most 253 (RFC 1035, 2.3.4).
const MAX_DNS_ENTRY_BYTES: usize = 256;
const MAX_PATH_BYTES: usize = 4096;
/// Bytes of a request's `source`.
pub(crate) const MAX_SOURCE_BYTES: usize = 512;
/// Bytes of each field of a pod's identity.
const MAX_IDENTITY_BYTES: usize = 1024;

/// Checks a request.
///
/// # Errors
/// All wrong fields.
pub(crate) fn attach(request: v1::AttachRequest) -> Result<AttachSpec, Invalid> {
    let mut bad = Invalid::new();
    let default_route = default_route(&request, &mut bad);
    let key = endpoint_key(&request.sandbox_id, &request.interface, &mut bad);
    let network = bad.take("network", network_name(&request.network));
    let netns_path = bad.take("netns_path", netns_path(&request.netns_path));
    let addresses = addresses(&request.addresses, &mut bad);
    let mac = mac(&request.mac, &mut bad);
    let port_mappings = port_mappings(&request.port_mappings, &mut bad);
    let bandwidth = bandwidth(request.bandwidth.unwrap_or_default(), &mut bad);
    let dns = dns(request.dns.unwrap_or_default(), &mut bad);
    let pod = pod(request.pod.unwrap_or_default(), &mut bad);
    texts::check_size(&request.labels, &request.annotations, &mut bad);
    texts::check_annotations(&request.annotations, &request.source, &mut bad);
    let issued_at = issued_at(request.issued_at, &mut bad);
    check_source(&request.source, &mut bad);
    let mtu = mtu(request.mtu, &mut bad);
    match (bad.into_result(), key, network, netns_path) {
        (Ok(()), Some(key), Some(network), Some(netns_path)) => Ok(AttachSpec {
            key,
            netns_path: Some(netns_path),
            network,
            pod,
            labels: request.labels,
            annotations: request.annotations,
            addresses,
            mac,
            mtu,
            port_mappings,
            bandwidth,
            dns,
            default_route,
            source: request.source,
            issued_at,
        }),
        (Err(bad), ..) => Err(bad),
        // Each of these is `None` only if a violation was recorded.
        (Ok(()), ..) => Err(Invalid::field("sandbox_id", "missing")),
    }
}

/// Checks a request for an endpoint that is in no sandbox yet; `network` is the one it named,
/// or the one of its address.
///
/// # Errors
/// Every field that is wrong.
pub(crate) fn create(
    request: v1::CreateEndpointRequest,
    network: NetworkName,
) -> Result<AttachSpec, Invalid> {
    let mut bad = Invalid::new();
    let key = endpoint_key(&request.endpoint_id, "", &mut bad);
    let addresses = addresses(&request.addresses, &mut bad);
    let mac = mac(&request.mac, &mut bad);
    texts::check_size(&request.labels, &BTreeMap::new(), &mut bad);
    let issued_at = issued_at(request.issued_at, &mut bad);
    check_source(&request.source, &mut bad);
    let mtu = mtu(request.mtu, &mut bad);
    bad.into_result()?;
    // It is `None` only with a violation recorded.
    let key = key.ok_or_else(|| Invalid::field("sandbox_id", "missing"))?;
    let empty = AttachSpec::for_endpoint(key, network, issued_at);
    Ok(AttachSpec { addresses, mac, mtu, labels: request.labels, source: request.source, ..empty })
}

fn mac(text: &str, bad: &mut Invalid) -> Option<Mac> {
    if text.is_empty() { None } else { bad.take("mac", text.parse()) }
}

/// `None`: 0, the network's.
fn mtu(mtu: u32, bad: &mut Invalid) -> Option<u32> {
    const MAX_MTU: u32 = 65535;
    if mtu > MAX_MTU {
        bad.add("mtu", format!("{mtu} is above {MAX_MTU}"));
    }
    (mtu != 0).then_some(mtu)
}

/// CLOCK_BOOTTIME, ns; now if the caller leaves it out.
fn issued_at(asked: u64, bad: &mut Invalid) -> u64 {
    let now = now_boot();
    if asked > now {
        let text = format!("{asked} is in the future (CLOCK_BOOTTIME is {now} ns)");
        bad.add("issued_at", text);
    }
    if asked == 0 { now } else { asked }
}

fn default_route(request: &v1::AttachRequest, bad: &mut Invalid) -> DefaultRoute {
    match (request.default_route, request.no_default_route) {
        (true, true) => {
            bad.add("default_route", "contradicts no_default_route; give one of them");
            DefaultRoute::First
        }
        (true, false) => DefaultRoute::Always,
        (false, true) => DefaultRoute::Never,
        (false, false) => DefaultRoute::First,
    }
}

fn check_source(source: &str, bad: &mut Invalid) {
    if source.len() > MAX_SOURCE_BYTES {
        let text = format!("has {} bytes; at most {MAX_SOURCE_BYTES}", source.len());
        bad.add("source", text);
    }
}

/// Sandbox id and interface (empty: eth0).
pub(crate) fn endpoint_key(sandbox: &str, ifname: &str, bad: &mut Invalid) -> Option<EndpointKey> {
    let ifname = if ifname.is_empty() { DEFAULT_IFNAME } else { ifname };
    let sandbox = bad.take("sandbox_id", sandbox.parse::<SandboxId>());
    let ifname = bad.take("interface", ifname.parse::<IfName>());
    Some(EndpointKey { sandbox: sandbox?, ifname: ifname? })
}

/// A network's name (empty: "default").
pub(crate) fn network_name(name: &str) -> Result<NetworkName, netd_domain::ids::NameError> {
    if name.is_empty() { NetworkName::DEFAULT.parse() } else { name.parse() }
}

/// The path of a sandbox's namespace.
pub(crate) fn netns_path(path: &str) -> Result<PathBuf, String> {
    let plain = Path::new(path);
    if path.is_empty() {
        return Err("must not be empty; give the path of the sandbox's network namespace".into());
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(format!("has {} bytes; a path has at most {MAX_PATH_BYTES}", path.len()));
    }
    if !plain.is_absolute() || path.contains('\0') {
        return Err(format!("{path:?} is not an absolute path, e.g. /run/netns/NAME"));
    }
    Ok(plain.to_owned())
}

/// Addresses with or without a prefix length. IPAM checks that there is at most one of each
/// family.
fn addresses(texts: &[String], bad: &mut Invalid) -> Vec<IpAddr> {
    if texts.len() > 2 {
        let text = format!("{} addresses; at most one of each family", texts.len());
        bad.add("addresses", text);
        return vec![];
    }
    let parse = |text: &str| {
        let net = text.parse::<IpNet>().map(|net| net.addr());
        text.parse::<IpAddr>().or(net).map_err(|_| {
            let shown: String = text.chars().take(64).collect();
            format!("{shown:?} is not an IP address, e.g. 10.244.0.5")
        })
    };
    let mut all = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let field = format!("addresses[{i}]");
        match bad.take(&field, parse(text)) {
            Some(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
                bad.add(field, format!("{v6} is an IPv4-mapped address; write it as IPv4"));
            }
            other => all.extend(other),
        }
    }
    all
}

/// Host ports: each must be valid, and none may be given twice.
pub(crate) fn port_mappings(ports: &[v1::PortMapping], bad: &mut Invalid) -> Vec<PortMapping> {
    if ports.len() > MAX_PORTS {
        bad.add("port_mappings", format!("{} entries; at most {MAX_PORTS}", ports.len()));
        return vec![];
    }
    let mut all = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let name = |part: &str| format!("port_mappings[{i}].{part}");
        let host_port = bad.take(&name("host_port"), port_number(port.host_port));
        let container_port = bad.take(&name("container_port"), port_number(port.container_port));
        let protocol = match v1::Protocol::try_from(port.protocol) {
            Ok(v1::Protocol::Unspecified | v1::Protocol::Tcp) => Some(Protocol::Tcp),
            Ok(v1::Protocol::Udp) => Some(Protocol::Udp),
            Ok(v1::Protocol::Sctp) => Some(Protocol::Sctp),
            Err(_) => {
                bad.add(name("protocol"), format!("{} is not TCP, UDP or SCTP", port.protocol));
                None
            }
        };
        let host_ip = bad.take(&name("host_ip"), port_mapping::host_ip(&port.host_ip));
        if let (Some(host_port), Some(container_port), Some(protocol), Some(host_ip)) =
            (host_port, container_port, protocol, host_ip)
        {
            all.push((i, PortMapping { host_port, container_port, protocol, host_ip }));
        }
    }
    if let Err(inner) = port_mapping::check(all.iter().map(|(i, port)| (*i, port))) {
        bad.extend(inner);
    }
    all.into_iter().map(|(_, port)| port).collect()
}

fn bandwidth(wire: v1::Bandwidth, bad: &mut Invalid) -> Bandwidth {
    let bandwidth = Bandwidth {
        ingress_rate: wire.ingress_rate,
        ingress_burst: wire.ingress_burst,
        egress_rate: wire.egress_rate,
        egress_burst: wire.egress_burst,
    };
    if let Err(inner) = bandwidth.check() {
        bad.nest("bandwidth", inner);
    }
    bandwidth
}

fn dns(wire: v1::Dns, bad: &mut Invalid) -> Dns {
    let lists =
        [("nameservers", &wire.nameservers), ("search", &wire.search), ("options", &wire.options)];
    for (name, list) in lists {
        let long = |w: &String| w.len() > MAX_DNS_ENTRY_BYTES || w.contains(char::is_control);
        if list.len() > MAX_DNS_ENTRIES || list.iter().any(long) {
            let text = format!(
                "at most {MAX_DNS_ENTRIES} entries of {MAX_DNS_ENTRY_BYTES} bytes, without control characters"
            );
            bad.add(format!("dns.{name}"), text);
        }
    }
    if wire.domain.len() > MAX_DNS_ENTRY_BYTES || wire.domain.contains(char::is_control) {
        let text = format!("at most {MAX_DNS_ENTRY_BYTES} bytes, without control characters");
        bad.add("dns.domain", text);
    }
    Dns {
        nameservers: wire.nameservers,
        domain: wire.domain,
        search: wire.search,
        options: wire.options,
    }
}

/// A pod's identity.
pub(crate) fn pod(wire: v1::PodIdentity, bad: &mut Invalid) -> PodIdentity {
    for (name, text) in [("namespace", &wire.namespace), ("name", &wire.name), ("uid", &wire.uid)] {
        if text.len() > MAX_IDENTITY_BYTES {
            bad.add(
                format!("pod.{name}"),
                format!("has {} bytes; at most {MAX_IDENTITY_BYTES}", text.len()),
            );
        }
    }
    PodIdentity { namespace: wire.namespace, name: wire.name, uid: wire.uid }
}
