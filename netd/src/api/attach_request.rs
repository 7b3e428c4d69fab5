//! Turns an AttachRequest into an AttachSpec. All wrong fields are reported at once.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use netd_api::{annotations, suggest::closest, v1};

use crate::node::now_boot;
use netd_domain::{
    AttachSpec, Bandwidth, DefaultRoute, Dns, EndpointKey, IfName, Invalid, Mac, NetworkName,
    PodIdentity, PortMapping, Protocol, SandboxId,
    ids::DEFAULT_IFNAME,
    port_mapping::{self, port_number},
};

/// Entries of labels, and of annotations, each.
const MAX_ENTRIES: usize = 4096;
/// Bytes of labels and annotations together; Kubernetes allows 256 KiB of annotations.
/// Counted as they are stored (JSON), so that a record fits into the store's limit of 1 MiB.
const MAX_TEXT_BYTES: usize = 512 << 10;
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
    let (labels, annotations) = texts(request.labels, request.annotations, &mut bad);
    check_annotations(&annotations, &request.source, &mut bad);
    let issued_at = issued_at(request.issued_at, &mut bad);
    check_source(&request.source, &mut bad);
    let mtu = mtu(request.mtu, &mut bad);
    match (bad.into_result(), key, network, netns_path) {
        (Ok(()), Some(key), Some(network), Some(netns_path)) => Ok(AttachSpec {
            key,
            netns_path: Some(netns_path),
            network,
            pod,
            labels,
            annotations,
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
    let (labels, _) = texts(request.labels, BTreeMap::new(), &mut bad);
    let issued_at = issued_at(request.issued_at, &mut bad);
    check_source(&request.source, &mut bad);
    let mtu = mtu(request.mtu, &mut bad);
    bad.into_result()?;
    // It is `None` only with a violation recorded.
    let key = key.ok_or_else(|| Invalid::field("sandbox_id", "missing"))?;
    let empty = AttachSpec::for_endpoint(key, network, issued_at);
    Ok(AttachSpec { addresses, mac, mtu, labels, source: request.source, ..empty })
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

/// Labels and annotations.
pub(crate) fn texts(
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    bad: &mut Invalid,
) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let mut total = 0;
    for (name, map) in [("labels", &labels), ("annotations", &annotations)] {
        if map.len() > MAX_ENTRIES {
            bad.add(name, format!("{} entries; at most {MAX_ENTRIES}", map.len()));
        }
        total += map.iter().map(|(k, v)| stored(k) + stored(v)).sum::<usize>();
    }
    if total > MAX_TEXT_BYTES {
        bad.add("annotations", format!("{total} bytes with the labels; at most {MAX_TEXT_BYTES}"));
    }
    (labels.into_iter().collect(), annotations.into_iter().collect())
}

/// An annotation of netd's that no hook reads is refused: its author meant another network than
/// the pod would get. A pod's annotations come by CNI and NRI, which read none of a container's.
fn check_annotations(all: &BTreeMap<String, String>, source: &str, bad: &mut Invalid) {
    let both = [annotations::OF_PODS.as_slice(), &annotations::OF_CONTAINERS].concat();
    let of_pod = source == "nri" || source.starts_with("cni/");
    let known = if of_pod { annotations::OF_PODS.as_slice() } else { &both };
    for key in all.keys().filter(|key| annotations::is_unread(key, known)) {
        let shown: String = key.chars().take(64).collect();
        let problem = if both.contains(&key.as_str()) {
            format!(
                "is for containers of the OCI hook; pods ask for networks by {}",
                annotations::NETWORKS
            )
        } else {
            match closest(key, known) {
                Some(name) => format!("unknown annotation; did you mean \"{name}\"?"),
                None => format!("unknown annotation; netd knows {}", known.join(", ")),
            }
        };
        bad.add(format!("annotations.{shown:?}"), problem);
    }
}

/// The length of `text` as JSON, in which a control character takes six bytes.
fn stored(text: &str) -> usize {
    let one = |b: u8| match b {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(one).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn request() -> v1::AttachRequest {
        v1::AttachRequest {
            sandbox_id: "s1".into(),
            netns_path: "/run/netns/s1".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let spec = attach(request()).unwrap();
        assert_eq!(spec.key.to_string(), "s1/eth0");
        assert_eq!(spec.network.as_str(), "default");
        assert!(spec.issued_at > 0);
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let port = v1::PortMapping {
            host_port: 0,
            container_port: 70000,
            protocol: 9,
            host_ip: "::1".into(),
        };
        let wrong = v1::AttachRequest {
            sandbox_id: "../x".into(),
            netns_path: "relative".into(),
            interface: "0123456789abcdef".into(),
            network: "A".into(),
            addresses: vec!["10.0.0.1".into(), "::ffff:10.0.0.1".into()],
            mac: "01:00:00:00:00:00".into(),
            mtu: 70000,
            port_mappings: vec![port],
            bandwidth: Some(v1::Bandwidth { ingress_rate: 1000, ..Default::default() }),
            labels: (0..10_000).map(|i| (i.to_string(), String::new())).collect(),
            issued_at: u64::MAX,
            default_route: true,
            no_default_route: true,
            ..Default::default()
        };
        let bad = attach(wrong).unwrap_err();
        let fields: Vec<_> = bad.violations.iter().map(|v| v.field.as_str()).collect();
        for field in [
            "sandbox_id",
            "interface",
            "network",
            "netns_path",
            "addresses[1]",
            "mac",
            "port_mappings[0].host_port",
            "port_mappings[0].container_port",
            "port_mappings[0].protocol",
            "port_mappings[0].host_ip",
            "bandwidth.ingress_burst",
            "labels",
            "issued_at",
            "mtu",
            "default_route",
        ] {
            assert!(fields.contains(&field), "{field} is missing in {fields:?}");
        }
    }

    #[test]
    fn annotations_of_netd_that_nothing_reads_are_refused() {
        let refused = |source: &str, key: &str| {
            let mut request = v1::AttachRequest { source: source.into(), ..request() };
            request.annotations = [(key.to_owned(), "blue".to_owned())].into();
            attach(request).err().map(|bad| bad.to_string()).unwrap_or_default()
        };
        for source in ["cni/netd", "nri", "oci", ""] {
            assert!(refused(source, "netd.io/netwroks").contains("did you mean"), "{source}");
            assert!(refused(source, "netd.io/").contains("annotations"), "{source}");
            assert_eq!(refused(source, "netd.io/networks"), "", "{source}");
            assert_eq!(refused(source, "example.org/netd.io/x"), "", "{source}");
        }
        for key in annotations::OF_CONTAINERS {
            assert_eq!(refused("oci", key), "");
            assert!(refused("cni/netd", key).contains(annotations::NETWORKS), "{key}");
        }
    }

    #[test]
    fn the_largest_request_that_is_taken_fits_into_a_record() {
        use netd_store::rules::MAX_VALUE_BYTES;
        let most = |what: &str, n: usize| what.repeat(n);
        let port = |n: u32| v1::PortMapping {
            host_port: n,
            container_port: n,
            host_ip: format!("2001:db8:1111:2222:3333:4444:5555:{n:x}"),
            ..Default::default()
        };
        let words = vec![most("\"", MAX_DNS_ENTRY_BYTES); MAX_DNS_ENTRIES];
        let dns = v1::Dns {
            nameservers: words.clone(),
            search: words.clone(),
            options: words,
            domain: String::new(),
        };
        let pod = |c: &str| v1::PodIdentity {
            namespace: most(c, MAX_IDENTITY_BYTES),
            name: most(c, MAX_IDENTITY_BYTES),
            uid: most(c, MAX_IDENTITY_BYTES),
        };
        let large = |c: &str, n: usize| v1::AttachRequest {
            annotations: [("a".to_owned(), most(c, n))].into(),
            port_mappings: (60000..60000 + MAX_PORTS as u32).map(port).collect(),
            pod: Some(pod(c)),
            dns: Some(dns.clone()),
            source: most(c, MAX_SOURCE_BYTES),
            ..request()
        };
        let spec = attach(large("\u{1}", MAX_TEXT_BYTES / 6 - 1)).unwrap();
        let all = (&spec.annotations, &spec.port_mappings, &spec.pod, &spec.dns, &spec.source);
        // The ports are in the record once, the netns path and the rest are small.
        let size = serde_json::to_vec(&all).unwrap().len() + 8 * MAX_PATH_BYTES;
        assert!(size < MAX_VALUE_BYTES, "{size}");
        assert!(attach(large("\u{1}", MAX_TEXT_BYTES / 6 + 1)).is_err());
    }

    #[test]
    fn a_port_mapped_twice_is_refused() {
        let port = v1::PortMapping { host_port: 80, container_port: 80, ..Default::default() };
        let twice = v1::AttachRequest { port_mappings: vec![port.clone(), port], ..request() };
        assert!(attach(twice).unwrap_err().to_string().contains("twice"));
    }
}
