//! What a configuration asks for beyond an address: `runtimeConfig`, `args.cni` and
//! `dns` (CNI conventions), read into netd's terms.
//!
//! Values are checked as far as their type goes, so that a wrong one is named by its
//! path in the configuration; what they mean is netd's to judge.

use std::collections::BTreeMap;

use netd_api::v1::{Bandwidth, Dns, PortMapping, Protocol};

use super::{address::is_address, args::CniArgs};
use crate::{
    error::shown,
    json::{JsonNode, Reader},
};

/// Where containerd puts a pod's annotations in `runtimeConfig`.
pub const POD_ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Everything that an attach may ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// `runtimeConfig.portMappings`.
    pub ports: Vec<PortMapping>,
    /// `runtimeConfig.bandwidth`; `None` if all is 0.
    pub bandwidth: Option<Bandwidth>,
    /// `runtimeConfig.ips`, else `args.cni.ips`, else `IP` of `CNI_ARGS`.
    pub ips: Vec<String>,
    /// `runtimeConfig.mac`, else `args.cni.mac`, else `MAC` of `CNI_ARGS`.
    pub mac: String,
    /// `dns`, each part overridden by `runtimeConfig.dns`.
    pub dns: Option<Dns>,
    /// `args.cni.labels`.
    pub labels: BTreeMap<String, String>,
    /// `runtimeConfig["io.kubernetes.cri.pod-annotations"]`.
    pub annotations: BTreeMap<String, String>,
    /// `ips` are those of `CNI_ARGS`.
    pub ips_from_args: bool,
    /// `mac` is that of `CNI_ARGS`.
    pub mac_from_args: bool,
}

impl Wishes {
    /// Reads the configuration; what is wrong is added to `reader`.
    pub fn read(root: &JsonNode<'_>, cni_args: &CniArgs, reader: &mut Reader) -> Self {
        let runtime = reader.object(root.get("runtimeConfig"));
        let args = reader.object(root.get("args"));
        let args = reader.object(args.and_then(|a| a.get("cni")));
        let field =
            |object: &Option<JsonNode<'_>>, key| object.as_ref().and_then(|o| o.get(key)).is_some();
        let ips = if field(&runtime, "ips") { &runtime } else { &args };
        let mac = if field(&runtime, "mac") { &runtime } else { &args };
        let mac = mac.as_ref().and_then(|o| reader.string(o.get("mac")));
        let mut wishes = Self {
            ips: ips.as_ref().map(|o| addresses(o, reader)).unwrap_or_default(),
            mac_from_args: mac.is_none() && cni_args.mac.is_some(),
            mac: mac.or_else(|| cni_args.mac.clone()).unwrap_or_default(),
            dns: dns(root, runtime.as_ref(), reader),
            labels: args.map(|a| labels(&a, reader)).unwrap_or_default(),
            ..Self::default()
        };
        if wishes.ips.is_empty() {
            wishes.ips.clone_from(&cni_args.ips);
            wishes.ips_from_args = !cni_args.ips.is_empty();
        }
        if let Some(runtime) = runtime {
            wishes.ports = ports(&runtime, reader);
            wishes.bandwidth = bandwidth(&runtime, reader);
            wishes.annotations = reader.string_map(runtime.get(POD_ANNOTATIONS));
        }
        wishes
    }
}

/// `ips`: addresses with or without a prefix length.
fn addresses(object: &JsonNode<'_>, reader: &mut Reader) -> Vec<String> {
    let mut found = Vec::new();
    for node in reader.list(object.get("ips")) {
        match node.as_str() {
            Some(text) if is_address(text) => found.push(text.to_owned()),
            _ => reader.wrong(&node, "an IP address, with or without a prefix length"),
        }
    }
    found
}

/// `args.cni.labels`: `[{"key": .., "value": ..}]`.
fn labels(args: &JsonNode<'_>, reader: &mut Reader) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for node in reader.list(args.get("labels")) {
        let Some(label) = reader.object(Some(node)) else { continue };
        reader.only(&label, &["key", "value"], false);
        match reader.string(label.get("key")) {
            Some(key) => {
                labels.insert(key, reader.string(label.get("value")).unwrap_or_default());
            }
            None => reader.add(label.path_of("key"), "is required"),
        }
    }
    labels
}

fn ports(runtime: &JsonNode<'_>, reader: &mut Reader) -> Vec<PortMapping> {
    let mut ports = Vec::new();
    for node in reader.list(runtime.get("portMappings")) {
        let Some(object) = reader.object(Some(node)) else { continue };
        reader.only(&object, &["hostPort", "containerPort", "protocol", "hostIP"], true);
        let host_port = port(&object, "hostPort", reader);
        let container_port = port(&object, "containerPort", reader);
        let host_ip = reader.any_case(&object, "hostIP");
        ports.push(PortMapping {
            host_port,
            container_port,
            protocol: protocol(&object, reader) as i32,
            host_ip: reader.string(host_ip).unwrap_or_default(),
        });
    }
    ports
}

fn port(object: &JsonNode<'_>, key: &str, reader: &mut Reader) -> u32 {
    let node = reader.any_case(object, key);
    if node.is_none() {
        reader.add(object.path_of(key), "is required");
    }
    let number = reader.number(node, 1..=65535);
    number.and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
}

fn protocol(object: &JsonNode<'_>, reader: &mut Reader) -> Protocol {
    let Some(node) = reader.any_case(object, "protocol") else { return Protocol::Tcp };
    let Some(text) = reader.string(Some(node)) else { return Protocol::Tcp };
    parse_protocol(&text).unwrap_or_else(|| {
        let problem = format!("{} is none of tcp, udp, sctp", shown(&text));
        reader.add(object.path_of("protocol"), problem);
        Protocol::Tcp
    })
}

/// A transport by its name in any case; empty: TCP.
pub fn parse_protocol(text: &str) -> Option<Protocol> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

fn bandwidth(runtime: &JsonNode<'_>, reader: &mut Reader) -> Option<Bandwidth> {
    let object = reader.object(runtime.get("bandwidth"))?;
    let known = ["ingressRate", "ingressBurst", "egressRate", "egressBurst"];
    reader.only(&object, &known, true);
    let mut rate = |key| {
        let node = reader.any_case(&object, key);
        reader.number(node, 0..=u64::MAX).unwrap_or_default()
    };
    let limits = Bandwidth {
        ingress_rate: rate("ingressRate"),
        ingress_burst: rate("ingressBurst"),
        egress_rate: rate("egressRate"),
        egress_burst: rate("egressBurst"),
    };
    (limits != Bandwidth::default()).then_some(limits)
}

/// The configuration's own `dns` and the runtime's, which has other names for the
/// same and counts for more.
fn dns(root: &JsonNode<'_>, runtime: Option<&JsonNode<'_>>, reader: &mut Reader) -> Option<Dns> {
    let mut dns = Dns::default();
    if let Some(own) = reader.object(root.get("dns")) {
        reader.only(&own, &["nameservers", "domain", "search", "options"], false);
        dns.nameservers = reader.strings(own.get("nameservers"));
        dns.domain = reader.string(own.get("domain")).unwrap_or_default();
        dns.search = reader.strings(own.get("search"));
        dns.options = reader.strings(own.get("options"));
    }
    if let Some(object) = reader.object(runtime.and_then(|r| r.get("dns"))) {
        reader.only(&object, &["servers", "searches", "options"], true);
        let mut given = |key, part: &mut Vec<String>| {
            let node = reader.any_case(&object, key);
            let values = reader.strings(node);
            if !values.is_empty() {
                *part = values;
            }
        };
        given("servers", &mut dns.nameservers);
        given("searches", &mut dns.search);
        given("options", &mut dns.options);
    }
    (dns != Dns::default()).then_some(dns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::HookError;
    use serde_json::{Value, json};

    fn read(value: &Value, args: &str) -> Result<Wishes, HookError> {
        let args = super::super::args::parse(args).unwrap();
        let mut reader = Reader::new();
        let wishes = Wishes::read(&JsonNode::root(value), &args, &mut reader);
        reader.finish().map(|()| wishes)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let spec = json!({"runtimeConfig": {
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1"}],
            "bandwidth": {"ingressRate": 1, "ingressBurst": 2, "egressRate": 3, "egressBurst": 4},
            "dns": {"servers": ["192.0.2.53"], "searches": ["a.test"], "options": ["ndots:5"]},
        }});
        let containerd = json!({"runtimeConfig": {
            "portMappings": [{"HostPort": 8080, "ContainerPort": 80, "Protocol": "UDP", "HostIP": "192.0.2.1"}],
            "bandwidth": {"IngressRate": 1, "IngressBurst": 2, "EgressRate": 3, "EgressBurst": 4},
            "dns": {"Servers": ["192.0.2.53"], "Searches": ["a.test"], "Options": ["ndots:5"]},
        }});
        let wishes = read(&spec, "").unwrap();
        assert_eq!(wishes, read(&containerd, "").unwrap());
        assert_eq!(wishes.ports[0].protocol, Protocol::Udp as i32);
        assert_eq!(wishes.ports[0].host_port, 8080);
        assert_eq!(wishes.bandwidth.unwrap().egress_burst, 4);
        assert_eq!(wishes.dns.unwrap().search, ["a.test"]);
    }

    #[test]
    fn the_runtime_s_wishes_count_for_more_than_the_configuration_s() {
        let config = json!({
            "dns": {"nameservers": ["192.0.2.1"], "domain": "d.test"},
            "args": {"cni": {"ips": ["10.0.0.2"], "mac": "02:00:00:00:00:02",
                             "labels": [{"key": "app", "value": "web"}]}},
            "runtimeConfig": {"ips": ["10.0.0.3/24"], "dns": {"servers": ["192.0.2.2"]}},
        });
        let wishes = read(&config, "IP=10.0.0.1;MAC=02:00:00:00:00:01").unwrap();
        assert_eq!(wishes.ips, ["10.0.0.3/24"]);
        assert_eq!(wishes.mac, "02:00:00:00:00:02");
        assert_eq!(wishes.labels["app"], "web");
        let dns = wishes.dns.unwrap();
        assert_eq!((dns.nameservers[0].as_str(), dns.domain.as_str()), ("192.0.2.2", "d.test"));
        assert_eq!(read(&json!({}), "IP=10.0.0.1").unwrap().ips, ["10.0.0.1"]);
    }

    #[test]
    fn nulls_and_zeroes_mean_nothing_is_wanted() {
        let config = json!({"args": null, "runtimeConfig": {
            "portMappings": null, "dns": {"Servers": null}, "cgroupPath": "/x", "aliases": {},
            "bandwidth": {"IngressRate": 0, "EgressRate": 0}, POD_ANNOTATIONS: null}});
        assert_eq!(read(&config, "").unwrap(), Wishes::default());
    }

    #[test]
    fn a_wrong_type_in_any_field_is_named_by_its_path() {
        let cases = [
            (json!({"runtimeConfig": 1}), "runtimeConfig: "),
            (json!({"args": []}), "args: "),
            (json!({"args": {"cni": "x"}}), "args.cni: "),
            (json!({"args": {"cni": {"labels": [{}]}}}), "args.cni.labels[0].key: "),
            (json!({"dns": {"search": "x"}}), "dns.search: "),
            (json!({"runtimeConfig": {"mac": 1}}), "runtimeConfig.mac: "),
            (json!({"runtimeConfig": {"ips": ["10.0.0.1/33"]}}), "runtimeConfig.ips[0]: "),
            (json!({"runtimeConfig": {"ips": [[]]}}), "runtimeConfig.ips[0]: "),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 65536, "containerPort": 1}]}}),
                "runtimeConfig.portMappings[0].hostPort: ",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"HostPort": 1, "ContainerPort": 1, "Protocol": "gre"}]}}),
                "runtimeConfig.portMappings[0].protocol: ",
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 1}]}}),
                "runtimeConfig.portMappings[0].containerPort: ",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"ingressRate": -1}}}),
                "runtimeConfig.bandwidth.ingressRate: ",
            ),
            (
                json!({"runtimeConfig": {"bandwidth": {"EgressBurst": 1e30}}}),
                "runtimeConfig.bandwidth.EgressBurst: ",
            ),
            (json!({"runtimeConfig": {"dns": {"Servers": [1]}}}), "runtimeConfig.dns.Servers[0]: "),
            (json!({"runtimeConfig": {POD_ANNOTATIONS: {"a": 1}}}), "pod-annotations.\"a\": "),
        ];
        for (config, path) in cases {
            let error = read(&config, "").unwrap_err();
            assert_eq!(error.cni_code(), 7);
            assert!(error.to_string().contains(path), "{path} in {error}");
        }
    }
}
