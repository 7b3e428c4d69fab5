//! Annotations by which a container says what it wants of its network.

use std::{collections::BTreeMap, net::IpAddr};

use netd_api::suggest::closest;
use netd_api::{
    annotations::{OF_CONTAINERS, OF_PODS, is_unread},
    v1::{PodIdentity, PortMapping},
};

use crate::{
    cni::{address::is_address, capabilities::parse_protocol},
    error::shown,
    excerpt::excerpt,
    json::Reader,
};

pub use netd_api::annotations::{DEFAULT_ROUTE, IP, MAC, NETWORK, PORTS};

/// Where runtimes say which pod a container belongs to: containerd, CRI-O, and what kubelet
/// gives to any. No two of them may differ.
const POD_NAMESPACE: [&str; 3] = [
    "io.kubernetes.cri.sandbox-namespace",
    "io.kubernetes.cri-o.Namespace",
    "io.kubernetes.pod.namespace",
];
const POD_NAME: [&str; 3] =
    ["io.kubernetes.cri.sandbox-name", "io.kubernetes.cri-o.KubeName", "io.kubernetes.pod.name"];
const POD_UID: [&str; 2] = ["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"];

/// What the annotations ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wishes {
    /// Instead of the hook's own networks.
    pub networks: Vec<String>,
    /// Without or with prefix length.
    pub ips: Vec<String>,
    /// Empty: netd's choice.
    pub mac: String,
    /// Name of the interface that has the default routes.
    pub default_route: Option<String>,
    /// Host ports.
    pub ports: Vec<PortMapping>,
    /// The pod that the container is of; empty: none.
    pub pod: PodIdentity,
}

impl Wishes {
    /// Reads the annotations; what is wrong is added to `reader`.
    pub fn read(annotations: &BTreeMap<String, String>, reader: &mut Reader) -> Self {
        let known = [OF_CONTAINERS.as_slice(), &OF_PODS].concat();
        for key in annotations.keys().filter(|key| is_unread(key, &known)) {
            let hint = match closest(key, &OF_CONTAINERS) {
                Some(name) => format!("did you mean \"{name}\"?"),
                None => format!("netd knows {}", OF_CONTAINERS.join(", ")),
            };
            reader.add(field(&excerpt(key)), format!("unknown annotation; {hint}"));
        }
        let items = |key: &str| {
            let text = annotations.get(key).map(String::as_str).unwrap_or_default();
            text.split(',').map(str::trim).filter(|item| !item.is_empty())
        };
        let mut wishes = Self {
            networks: items(NETWORK).map(str::to_owned).collect(),
            default_route: annotations.get(DEFAULT_ROUTE).map(|name| name.trim().to_owned()),
            mac: annotations.get(MAC).cloned().unwrap_or_default(),
            pod: PodIdentity {
                namespace: agreed(annotations, &POD_NAMESPACE, reader),
                name: agreed(annotations, &POD_NAME, reader),
                uid: agreed(annotations, &POD_UID, reader),
            },
            ..Self::default()
        };
        for ip in items(IP) {
            if is_address(ip) {
                wishes.ips.push(ip.to_owned());
            } else {
                reader.add(field(IP), format!("{} is not an IP address", shown(ip)));
            }
        }
        for port in items(PORTS) {
            match parse_port(port) {
                Some(mapping) => wishes.ports.push(mapping),
                None => reader.add(
                    field(PORTS),
                    format!("{} is not [HOST-IP:]HOST-PORT:PORT[/PROTOCOL]", shown(port)),
                ),
            }
        }
        wishes
    }
}

/// The value of all of `keys` that are there.
fn agreed(all: &BTreeMap<String, String>, keys: &[&str], reader: &mut Reader) -> String {
    let mut given = keys.iter().filter_map(|key| Some((key, all.get(*key)?)));
    let Some((first, value)) = given.next() else { return String::new() };
    for (key, other) in given.filter(|(_, other)| *other != value) {
        let problem = format!("{} is not {}, which {first} says", shown(other), shown(value));
        reader.add(field(key), problem);
    }
    value.clone()
}

pub(super) fn field(key: &str) -> String {
    format!("annotations.\"{key}\"")
}

fn parse_port(text: &str) -> Option<PortMapping> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (front, container_port) = ports.rsplit_once(':')?;
    let (host_ip, host_port) = match front.rsplit_once(':') {
        Some((ip, port)) => {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
            let ip: IpAddr = bare.unwrap_or(ip).parse().ok()?;
            // Without brackets an IPv6 address and a port can't be told apart.
            (bare.is_some() == ip.is_ipv6()).then_some((ip.to_string(), port))?
        }
        None => (String::new(), front),
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0).map(u32::from);
    Some(PortMapping {
        host_port: port(host_port)?,
        container_port: port(container_port)?,
        protocol: parse_protocol(protocol)? as i32,
        host_ip,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use netd_api::v1::Protocol;

    #[test]
    fn ports_are_read_in_every_form() {
        let port = |text| {
            let p = parse_port(text)?;
            Some((p.host_ip, p.host_port, p.container_port, p.protocol))
        };
        let (tcp, udp) = (Protocol::Tcp as i32, Protocol::Udp as i32);
        assert_eq!(port("8080:80"), Some((String::new(), 8080, 80, tcp)));
        assert_eq!(port("127.0.0.1:53:53/udp"), Some(("127.0.0.1".into(), 53, 53, udp)));
        assert_eq!(port("[::1]:53:53/UDP"), Some(("::1".into(), 53, 53, udp)));
        for bad in ["", "80", "0:80", "80:65536", "a:80", "::1:53:53", "[1.2.3.4]:1:1", "1:1/gre"] {
            assert_eq!(port(bad), None, "{bad}");
        }
    }

    #[test]
    fn wrong_annotations_are_all_named() {
        let annotations = [(IP, "10.0.0.5, x"), (PORTS, "1:1,y"), (NETWORK, "a, b,")];
        let annotations = annotations.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut reader = Reader::new();
        let wishes = Wishes::read(&annotations, &mut reader);
        assert_eq!((wishes.networks.len(), wishes.ips.len(), wishes.ports.len()), (2, 1, 1));
        let text = reader.finish().unwrap_err().to_string();
        assert!(
            text.contains("netd.io/ip\": \"x\"") && text.contains("netd.io/ports\": \"y\""),
            "{text}"
        );
    }
}
