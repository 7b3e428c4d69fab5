use std::{collections::BTreeMap, time::SystemTime};

use netd_api::v1;
use serde::Serialize;

use super::{age, fields, or_dash, short};
use crate::terminal::{Output, table};

/// Answer of `netd endpoint list`.
#[derive(Debug, Default, Serialize)]
pub(in crate::cli) struct Endpoints {
    pub endpoints: Vec<Endpoint>,
    pub revision: Option<i64>,
}

/// One endpoint.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Endpoint {
    sandbox_id: String,
    interface: String,
    network: String,
    state: String,
    netns_path: String,
    netns_inode: u64,
    host_interface: String,
    bridge: String,
    bridge_mac: String,
    mac: String,
    host_mac: String,
    mtu: u32,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    pod: Pod,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    port_mappings: Vec<Port>,
    host_port_conflicts: Vec<String>,
    bandwidth: Bandwidth,
    dns: Dns,
    created_at: i64,
    changes_inside: Vec<String>,
    named_ports: Vec<NamedPort>,
}

#[derive(Debug, Serialize)]
struct Address {
    address: String,
    gateway: String,
}

#[derive(Debug, Serialize)]
struct Route {
    destination: String,
    gateway: String,
}

#[derive(Debug, Serialize)]
struct Pod {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    host_ip: String,
    host_port: u32,
    container_port: u32,
    protocol: String,
}

#[derive(Debug, Serialize)]
struct NamedPort {
    name: String,
    port: u32,
    protocol: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Bandwidth {
    ingress_rate: u64,
    ingress_burst: u64,
    egress_rate: u64,
    egress_burst: u64,
}

#[derive(Debug, Serialize)]
struct Dns {
    nameservers: Vec<String>,
    domain: String,
    search: Vec<String>,
    options: Vec<String>,
}

/// One event of a watch.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Event {
    r#type: String,
    revision: i64,
    endpoint: Option<Endpoint>,
}

impl From<v1::Endpoint> for Endpoint {
    fn from(e: v1::Endpoint) -> Self {
        let (pod, dns) = (e.pod.clone().unwrap_or_default(), e.dns.clone().unwrap_or_default());
        Self {
            state: short(e.state().as_str_name(), "ENDPOINT_STATE_"),
            sandbox_id: e.sandbox_id,
            interface: e.interface,
            network: e.network,
            netns_path: e.netns_path,
            netns_inode: e.netns_inode,
            host_interface: e.host_interface,
            bridge: e.bridge,
            bridge_mac: e.bridge_mac,
            mac: e.mac,
            host_mac: e.host_mac,
            mtu: e.mtu,
            addresses: e.addresses.into_iter().map(Address::from).collect(),
            routes: e.routes.into_iter().map(Route::from).collect(),
            pod: Pod { namespace: pod.namespace, name: pod.name, uid: pod.uid },
            labels: e.labels.into_iter().collect(),
            annotations: e.annotations.into_iter().collect(),
            port_mappings: e.port_mappings.into_iter().map(Port::from).collect(),
            host_port_conflicts: e.host_port_conflicts,
            bandwidth: e.bandwidth.unwrap_or_default().into(),
            dns: Dns {
                nameservers: dns.nameservers,
                domain: dns.domain,
                search: dns.search,
                options: dns.options,
            },
            created_at: e.created_at,
            changes_inside: e.changes_inside,
            named_ports: e.named_ports.into_iter().map(NamedPort::from).collect(),
        }
    }
}

impl From<v1::NamedPort> for NamedPort {
    fn from(p: v1::NamedPort) -> Self {
        let protocol = short(p.protocol().as_str_name(), "PROTOCOL_");
        Self { name: p.name, port: p.port, protocol }
    }
}

impl From<v1::Address> for Address {
    fn from(a: v1::Address) -> Self {
        Self { address: a.address, gateway: a.gateway }
    }
}

impl From<v1::Route> for Route {
    fn from(r: v1::Route) -> Self {
        Self { destination: r.destination, gateway: r.gateway }
    }
}

impl From<v1::PortMapping> for Port {
    fn from(p: v1::PortMapping) -> Self {
        Self {
            protocol: short(p.protocol().as_str_name(), "PROTOCOL_"),
            host_ip: p.host_ip,
            host_port: p.host_port,
            container_port: p.container_port,
        }
    }
}

impl From<v1::Bandwidth> for Bandwidth {
    fn from(b: v1::Bandwidth) -> Self {
        Self {
            ingress_rate: b.ingress_rate,
            ingress_burst: b.ingress_burst,
            egress_rate: b.egress_rate,
            egress_burst: b.egress_burst,
        }
    }
}

impl From<v1::WatchEndpointsResponse> for Event {
    fn from(e: v1::WatchEndpointsResponse) -> Self {
        Self {
            r#type: short(e.r#type().as_str_name(), "EVENT_TYPE_"),
            revision: e.revision,
            endpoint: e.endpoint.map(Endpoint::from),
        }
    }
}

impl Endpoint {
    fn pod_name(&self) -> String {
        match self.pod.name.as_str() {
            "" => "-".to_owned(),
            name => format!("{}/{name}", self.pod.namespace),
        }
    }

    /// Addresses without their prefix lengths.
    fn ips(&self) -> String {
        let ip = |a: &Address| a.address.split('/').next().unwrap_or_default().to_owned();
        or_dash(&self.addresses.iter().map(ip).collect::<Vec<_>>().join(","))
    }

    /// So many characters of the id. `inspect` takes them for the whole id.
    fn short_id(&self, length: usize) -> String {
        self.sandbox_id.chars().take(length).collect()
    }

    fn ports(&self) -> String {
        let one = |p: &Port| {
            let ip = if p.host_ip.is_empty() { "*" } else { &p.host_ip };
            format!("{ip}:{}->{}/{}", p.host_port, p.container_port, p.protocol)
        };
        self.port_mappings.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn named_ports(&self) -> String {
        let one = |p: &NamedPort| format!("{} {}/{}", p.name, p.port, p.protocol);
        self.named_ports.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn limits(&self) -> String {
        let b = &self.bandwidth;
        let one = |to: &str, rate: u64, burst: u64| match rate {
            0 => None,
            _ => Some(format!("{to} the pod {rate} bit/s (burst {burst} bit)")),
        };
        let both = [
            one("to", b.ingress_rate, b.ingress_burst),
            one("from", b.egress_rate, b.egress_burst),
        ];
        both.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Characters of an id that are shown, as runtimes abbreviate ids.
const MIN_ID_LENGTH: usize = 13;

/// How many characters tell all these ids apart; at least [`MIN_ID_LENGTH`].
fn id_length<'a>(ids: impl Iterator<Item = &'a str>) -> usize {
    let mut ids: Vec<&str> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    let common = |pair: &[&str]| match pair {
        [a, b] => a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count(),
        _ => 0,
    };
    ids.windows(2).map(|pair| common(pair) + 1).max().unwrap_or(0).max(MIN_ID_LENGTH)
}

fn pairs(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ")
}

impl Output for Endpoints {
    fn text(&self) -> String {
        let now = SystemTime::now();
        let length = id_length(self.endpoints.iter().map(|e| e.sandbox_id.as_str()));
        let rows = self.endpoints.iter().map(|e| {
            vec![
                e.short_id(length),
                e.interface.clone(),
                e.pod_name(),
                e.network.clone(),
                e.ips(),
                e.state.clone(),
                e.host_interface.clone(),
                age(e.created_at, now),
            ]
        });
        table(&["SANDBOX", "IF", "POD", "NETWORK", "ADDRESSES", "STATE", "HOST IF", "AGE"], rows)
    }
}

impl Output for Endpoint {
    fn text(&self) -> String {
        let via = |address: &str, gateway: &str| match gateway {
            "" => address.to_owned(),
            _ => format!("{address} via {gateway}"),
        };
        let addresses = self.addresses.iter().map(|a| a.address.clone());
        let routes = self.routes.iter().map(|r| via(&r.destination, &r.gateway));
        let bridge = match self.bridge.as_str() {
            "" => String::new(),
            name => format!("{name} ({})", self.bridge_mac),
        };
        fields(&[
            ("sandbox", self.sandbox_id.clone()),
            ("interface", self.interface.clone()),
            ("network", self.network.clone()),
            ("state", self.state.clone()),
            ("pod", self.pod_name()),
            ("pod uid", self.pod.uid.clone()),
            ("addresses", addresses.collect::<Vec<_>>().join(", ")),
            ("routes", routes.collect::<Vec<_>>().join(", ")),
            ("mac", self.mac.clone()),
            ("mtu", self.mtu.to_string()),
            ("namespace", format!("{} (inode {})", self.netns_path, self.netns_inode)),
            ("host interface", format!("{} ({})", self.host_interface, self.host_mac)),
            ("bridge", bridge),
            ("host ports", self.ports()),
            ("named ports", self.named_ports()),
            ("conflicts", self.host_port_conflicts.join("; ")),
            ("limits", self.limits()),
            ("dns", self.dns.nameservers.join(", ")),
            ("labels", pairs(&self.labels)),
            ("annotations", pairs(&self.annotations)),
            ("changed inside", self.changes_inside.join("; ")),
            ("age", age(self.created_at, SystemTime::now())),
        ])
    }
}

impl Event {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let Some(e) = &self.endpoint else {
            return format!("{:<8} r{}\n", self.r#type, self.revision);
        };
        let who =
            format!("{} {} {} {}", e.short_id(MIN_ID_LENGTH), e.interface, e.pod_name(), e.ips());
        let line = format!("{:<8} r{} {who} {}", self.r#type, self.revision, e.state);
        crate::terminal::printable(&line) + "\n"
    }
}
