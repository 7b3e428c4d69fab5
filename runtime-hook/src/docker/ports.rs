//! Host ports: `-p` and `-P`.

use netd_api::v1::{PortMapping, Protocol, PublishRequest};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Netd, endpoint::text_of, server::Failure};
use crate::{error::HookError, refusal::Code};

const PORT_MAP: &str = "com.docker.network.portmap";
/// From here to there Docker chooses ports that are left to it
/// (`net.ipv4.ip_local_port_range`, as the kernel sets it).
const FREE: (u16, u16) = (32768, 60999);
/// How often another port is tried when the first ones are taken.
const TRIES: u16 = 256;

/// As libnetwork has it (`types.PortBinding`).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    /// IP protocol number.
    proto: u8,
    port: u16,
    #[serde(default, rename = "HostIP")]
    host_ip: Option<String>,
    #[serde(default)]
    host_port: u16,
    #[serde(default)]
    host_port_end: u16,
}

/// A port of the container, and from which to which ports of the host one may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    mapping: PortMapping,
    first: u16,
    last: u16,
}

/// Reads the port map among ProgramExternalConnectivity's options.
pub fn read(options: &Map<String, Value>) -> Result<Vec<Asked>, Failure> {
    let bindings = match options.get(PORT_MAP) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => serde_json::from_value::<Vec<Binding>>(value.clone())
            .map_err(|e| Failure::field(PORT_MAP, format!("{e} in {}", text_of(value))))?,
    };
    let mut all: Vec<Asked> = Vec::new();
    for binding in bindings {
        let asked = asked(binding)?;
        // 0.0.0.0 and ::, which dockerd may name both, are one for netd.
        if !all.contains(&asked) {
            all.push(asked);
        }
    }
    Ok(all)
}

fn asked(binding: Binding) -> Result<Asked, Failure> {
    let protocol = match binding.proto {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        other => {
            let text = format!("protocol {other} is not TCP (6), UDP (17) or SCTP (132)");
            return Err(Failure::field(PORT_MAP, text));
        }
    };
    let (first, last) = match (binding.host_port, binding.host_port_end) {
        (0, 0) => FREE,
        (port, end) if end > port => (port, end),
        (port, _) => (port, port),
    };
    let everywhere = |ip: &String| !["0.0.0.0", "::"].contains(&ip.as_str());
    let mapping = PortMapping {
        host_port: first.into(),
        container_port: binding.port.into(),
        protocol: protocol.into(),
        host_ip: binding.host_ip.filter(everywhere).unwrap_or_default(),
    };
    Ok(Asked { mapping, first, last })
}

/// Publishes the ports; of those that may be chosen, the first that nobody has.
pub async fn publish(netd: &Netd, endpoint_id: &str, asked: &[Asked]) -> Result<(), HookError> {
    let mut ports: Vec<PortMapping> = Vec::new();
    for one in asked {
        let taken = |port: u16, ports: &[PortMapping]| {
            let same = |p: &PortMapping| {
                p.protocol == one.mapping.protocol && p.host_port == u32::from(port)
            };
            one.first != one.last && ports.iter().any(same)
        };
        let mut port = one.first;
        while taken(port, &ports) && port < one.last {
            port += 1;
        }
        ports.push(PortMapping { host_port: port.into(), ..one.mapping.clone() });
    }
    for _ in 0..TRIES {
        let request = PublishRequest {
            endpoint_id: endpoint_id.to_owned(),
            port_mappings: ports.clone(),
            leads_out: true,
        };
        let refused = match netd.publish(request).await {
            Err(HookError::Refused(refusal)) if refusal.code == Code::AlreadyExists => refusal,
            other => return other,
        };
        // netd names the port as 8080/tcp or 192.0.2.1:8080/tcp.
        let held = |port: &PortMapping| {
            let name = format!("{}/", port.host_port);
            let mut words = refused.message.split([' ', ':']);
            words.any(|word| word.starts_with(&name))
        };
        let mut moved = false;
        for (port, one) in ports.iter_mut().zip(asked) {
            if held(port) && port.host_port < one.last.into() {
                port.host_port += 1;
                moved = true;
            }
        }
        if !moved {
            return Err(HookError::Refused(refused));
        }
    }
    let text = format!("{TRIES} host ports in a row are taken; name one");
    Err(HookError::BadAnswer(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ports(value: Value) -> Result<Vec<Asked>, Failure> {
        read(json!({ PORT_MAP: value }).as_object().unwrap())
    }

    #[test]
    fn a_port_map_of_dockerds_is_read() {
        let all = ports(json!([
            {"Proto": 6, "IP": "", "Port": 80, "HostIP": "0.0.0.0", "HostPort": 8080, "HostPortEnd": 8080},
            {"Proto": 6, "IP": null, "Port": 80, "HostIP": "::", "HostPort": 8080, "HostPortEnd": 8080},
            {"Proto": 17, "Port": 53, "HostIP": "127.0.0.1", "HostPort": 5300, "HostPortEnd": 5310},
            {"Proto": 132, "Port": 9},
        ]))
        .unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|a| (a.mapping.container_port, a.mapping.host_ip.as_str(), a.first, a.last))
            .collect();
        let free = (9, "", FREE.0, FREE.1);
        assert_eq!(shown, [(80, "", 8080, 8080), (53, "127.0.0.1", 5300, 5310), free]);
        assert_eq!(ports(Value::Null).unwrap(), []);
    }

    #[test]
    fn a_damaged_port_map_is_refused() {
        for bad in [json!({}), json!([1]), json!([{"Proto": 1, "Port": 1}]), json!([{"Proto": 6}])]
        {
            assert!(ports(bad).is_err());
        }
        assert!(ports(json!([{"Proto": 6, "Port": 70000}])).is_err());
    }
}
