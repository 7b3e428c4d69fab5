//! Host ports: the `-p` and `-P` of `docker run`.

use netd_api::v1::{PortMapping, Protocol, PublishRequest};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    error::DriverError,
    netd::{NetdClient, SOURCE},
};
use crate::{error::HookError, excerpt::escaped, status::Code};

/// The option of ProgramExternalConnectivity that holds the port map.
const PORT_MAP: &str = "com.docker.network.portmap";
/// Docker publishes a container port without a given host port in this range, the default of
/// `net.ipv4.ip_local_port_range`.
const DYNAMIC_PORTS: (u16, u16) = (32768, 60999);
/// How many busy ports of a range are skipped before the call is refused.
const MAX_ATTEMPTS: usize = 256;

/// libnetwork's `types.PortBinding`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
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

/// A port of the container and the host ports that may be mapped to it, `first` to `last`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PortRequest {
    mapping: PortMapping,
    first: u16,
    last: u16,
}

impl PortRequest {
    fn is_range(&self) -> bool {
        self.first != self.last
    }
}

/// Reads the port map from the options of ProgramExternalConnectivity.
pub(super) fn parse(options: &Map<String, Value>) -> Result<Vec<PortRequest>, DriverError> {
    let bindings = match options.get(PORT_MAP) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(value) => serde_json::from_value::<Vec<PortBinding>>(value.clone()).map_err(|e| {
            DriverError::field(PORT_MAP, format!("{e} in {}", escaped(&value.to_string())))
        })?,
    };
    let mut all: Vec<PortRequest> = Vec::new();
    for binding in bindings {
        let request = port_request(binding)?;
        if !all.contains(&request) {
            all.push(request);
        }
    }
    Ok(join_families(all))
}

/// dockerd may name both 0.0.0.0 and :: for a port of every address. They become one request:
/// of a range, both families get the same port.
fn join_families(requests: Vec<PortRequest>) -> Vec<PortRequest> {
    let on = |request: &PortRequest, host_ip: &str| {
        let mapping = PortMapping { host_ip: host_ip.to_owned(), ..request.mapping.clone() };
        PortRequest { mapping, ..request.clone() }
    };
    let mut joined: Vec<PortRequest> = Vec::new();
    for request in &requests {
        let other = match request.mapping.host_ip.as_str() {
            "0.0.0.0" => "::",
            "::" => "0.0.0.0",
            _ => "",
        };
        let is_pair = !other.is_empty() && requests.contains(&on(request, other));
        let request = if is_pair { on(request, "") } else { request.clone() };
        if !joined.contains(&request) {
            joined.push(request);
        }
    }
    joined
}

fn port_request(binding: PortBinding) -> Result<PortRequest, DriverError> {
    let protocol = match binding.proto {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        other => {
            let text = format!("protocol {other} is not TCP (6), UDP (17) or SCTP (132)");
            return Err(DriverError::field(PORT_MAP, text));
        }
    };
    let (first, last) = match (binding.host_port, binding.host_port_end) {
        (0, 0) => DYNAMIC_PORTS,
        (port, end) if end > port => (port, end),
        (port, _) => (port, port),
    };
    let mapping = PortMapping {
        host_port: first.into(),
        container_port: binding.port.into(),
        protocol: protocol.into(),
        host_ip: binding.host_ip.unwrap_or_default(),
    };
    Ok(PortRequest { mapping, first, last })
}

/// Publishes the ports. Of a range it publishes the first port that no endpoint holds.
pub(super) async fn publish(
    netd: &NetdClient,
    endpoint_id: &str,
    requests: &[PortRequest],
) -> Result<(), HookError> {
    let mut busy: Vec<BusyPort> = Vec::new();
    loop {
        let chosen = choose(requests, &busy);
        let publish = PublishRequest {
            endpoint_id: endpoint_id.to_owned(),
            port_mappings: chosen.clone(),
            leads_out: true,
            source: SOURCE.to_owned(),
        };
        let refusal = match netd.publish(publish).await {
            Err(HookError::Refused(refusal)) if refusal.code == Code::AlreadyExists => refusal,
            other => return other,
        };
        let Some(port) = BusyPort::of(&refusal.metadata) else {
            return Err(HookError::Refused(refusal));
        };
        let can_avoid = requests
            .iter()
            .zip(&chosen)
            .any(|(request, mapping)| request.is_range() && port.is(mapping));
        if !can_avoid || busy.contains(&port) || busy.len() == MAX_ATTEMPTS {
            return Err(HookError::Refused(refusal));
        }
        busy.push(port);
    }
}

/// A host port that netd refused because another endpoint holds it.
#[derive(Debug, PartialEq, Eq)]
struct BusyPort {
    protocol: Protocol,
    host_port: u32,
}

impl BusyPort {
    /// Reads the metadata of HOST_PORT_TAKEN (see netd/v1/endpoint.proto).
    fn of(metadata: &[(String, String)]) -> Option<Self> {
        let get = |key| metadata.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        let protocol = match get("protocol")? {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        };
        Some(Self { protocol, host_port: get("host_port")?.parse().ok()? })
    }

    fn is(&self, mapping: &PortMapping) -> bool {
        mapping.host_port == self.host_port && mapping.protocol() == self.protocol
    }
}

/// One host port for each request. A range gives its first port that is neither busy nor
/// chosen for another request, or its last one when there is none: netd's refusal names it.
fn choose(requests: &[PortRequest], busy: &[BusyPort]) -> Vec<PortMapping> {
    let mut chosen: Vec<PortMapping> = requests.iter().map(|r| r.mapping.clone()).collect();
    let mut settled: Vec<bool> = requests.iter().map(|r| !r.is_range()).collect();
    for (at, request) in requests.iter().enumerate().filter(|(_, r)| r.is_range()) {
        let is_free = |port: &u16| {
            let candidate =
                BusyPort { protocol: request.mapping.protocol(), host_port: u32::from(*port) };
            let mut others = chosen.iter().zip(&settled).filter(|(_, settled)| **settled);
            !busy.contains(&candidate) && !others.any(|(other, _)| candidate.is(other))
        };
        let port = (request.first..=request.last).find(is_free).unwrap_or(request.last);
        chosen[at].host_port = port.into();
        settled[at] = true;
    }
    chosen
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(value: Value) -> Result<Vec<PortRequest>, DriverError> {
        parse(json!({ PORT_MAP: value }).as_object().unwrap())
    }

    #[test]
    fn a_port_map_of_dockerds_is_read() {
        let all = parsed(json!([
            {"Proto": 6, "IP": "", "Port": 80, "HostIP": "0.0.0.0", "HostPort": 8080, "HostPortEnd": 8080},
            {"Proto": 6, "IP": null, "Port": 80, "HostIP": "::", "HostPort": 8080, "HostPortEnd": 8080},
            {"Proto": 17, "Port": 53, "HostIP": "127.0.0.1", "HostPort": 5300, "HostPortEnd": 5310},
            {"Proto": 132, "Port": 9},
            {"Proto": 6, "Port": 81, "HostIP": "0.0.0.0", "HostPort": 8081},
            {"Proto": 6, "Port": 82, "HostIP": "::", "HostPort": 8082},
        ]))
        .unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|a| (a.mapping.container_port, a.mapping.host_ip.as_str(), a.first, a.last))
            .collect();
        let dynamic = (9, "", DYNAMIC_PORTS.0, DYNAMIC_PORTS.1);
        let (v4, v6) = ((81, "0.0.0.0", 8081, 8081), (82, "::", 8082, 8082));
        assert_eq!(shown, [(80, "", 8080, 8080), (53, "127.0.0.1", 5300, 5310), dynamic, v4, v6]);
        assert_eq!(parsed(Value::Null).unwrap(), []);
    }

    #[test]
    fn a_damaged_port_map_is_refused() {
        for bad in [json!({}), json!([1]), json!([{"Proto": 1, "Port": 1}]), json!([{"Proto": 6}])]
        {
            assert!(parsed(bad).is_err());
        }
        assert!(parsed(json!([{"Proto": 6, "Port": 70000}])).is_err());
    }

    #[test]
    fn a_range_gives_its_first_port_that_is_neither_busy_nor_chosen() {
        let requests = parsed(json!([
            {"Proto": 6, "Port": 80, "HostPort": 9000, "HostPortEnd": 9003},
            {"Proto": 6, "Port": 81, "HostPort": 9000, "HostPortEnd": 9003},
            {"Proto": 17, "Port": 80, "HostPort": 9000, "HostPortEnd": 9003},
            {"Proto": 6, "Port": 82, "HostPort": 9002},
        ]))
        .unwrap();
        let ports = |busy: &[BusyPort]| -> Vec<u32> {
            choose(&requests, busy).iter().map(|mapping| mapping.host_port).collect()
        };
        let tcp = |host_port| BusyPort { protocol: Protocol::Tcp, host_port };
        assert_eq!(ports(&[]), [9000, 9001, 9000, 9002]);
        assert_eq!(ports(&[tcp(9000)]), [9001, 9003, 9000, 9002]);
        assert_eq!(ports(&[tcp(9000), tcp(9001)]), [9003, 9003, 9000, 9002], "none is left");
    }

    #[test]
    fn a_busy_port_is_read_from_the_metadata_alone() {
        let metadata = |host_port: &str, protocol: &str| {
            let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            vec![pair("hint", "x"), pair("host_port", host_port), pair("protocol", protocol)]
        };
        let busy = BusyPort::of(&metadata("8080", "udp")).unwrap();
        assert_eq!(busy, BusyPort { protocol: Protocol::Udp, host_port: 8080 });
        assert_eq!(BusyPort::of(&metadata("8080", "udp")[..2]), None);
        assert_eq!(BusyPort::of(&metadata("x", "tcp")), None);
        assert_eq!(BusyPort::of(&[]), None);
    }
}
