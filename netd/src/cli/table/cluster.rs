use std::{collections::BTreeMap, time::SystemTime};

use netd_api::v1;
use serde::Serialize;

use super::{age, fields, or_dash};
use crate::terminal::{Output, table};

/// Answer of `netd node list`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Nodes {
    networks: Vec<String>,
    backend: String,
    behind_since: i64,
    behind_reason: String,
    nodes: Vec<NodeSubnet>,
}

/// A lease.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeSubnet {
    subnets: Vec<String>,
    node: String,
    public_ip: String,
    public_ipv6: String,
    backend: String,
    local: bool,
    reservation: bool,
    since: i64,
    programmed: bool,
    problem: String,
}

/// Answer of `netd node remove`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct RemovedNode {
    /// As it was asked for.
    removed: String,
    node: String,
    subnets: Vec<String>,
    public_ip: String,
    public_ipv6: String,
}

impl RemovedNode {
    pub(in crate::cli) fn new(asked: String, answer: v1::RemoveNodeResponse) -> Self {
        let v1::RemoveNodeResponse { node, subnets, public_ip, public_ipv6 } = answer;
        Self { removed: asked, node, subnets, public_ip, public_ipv6 }
    }
}

impl Output for RemovedNode {
    fn text(&self) -> String {
        let free = match self.subnets.len() {
            0 => "it had no subnet".to_owned(),
            1 => format!("{} is free", self.subnets.join("")),
            _ => format!("{} are free", self.subnets.join(", ")),
        };
        format!("node {} is removed: {free}\n", self.removed)
    }
}

/// Answer of `netd route get`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Route {
    ip: String,
    node: Option<NodeSubnet>,
    pod: Option<Pod>,
    pod_problem: String,
    device: String,
    next_hop: String,
    mtu: u32,
    kernel: Option<Kernel>,
    agrees: bool,
    difference: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pod {
    ips: Vec<String>,
    node: String,
    sandbox_id: String,
    ifname: String,
    network: String,
    namespace: String,
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Kernel {
    device: String,
    gateway: String,
    source: String,
    mtu: u32,
}

impl From<v1::NodeSubnet> for NodeSubnet {
    fn from(n: v1::NodeSubnet) -> Self {
        Self {
            subnets: n.subnets,
            node: n.node,
            public_ip: n.public_ip,
            public_ipv6: n.public_ipv6,
            backend: n.backend,
            local: n.local,
            reservation: n.reservation,
            since: n.since,
            programmed: n.programmed,
            problem: n.problem,
        }
    }
}

impl From<v1::ListNodesResponse> for Nodes {
    fn from(list: v1::ListNodesResponse) -> Self {
        Self {
            networks: list.networks,
            backend: list.backend,
            behind_since: list.behind_since,
            behind_reason: list.behind_reason,
            nodes: list.nodes.into_iter().map(NodeSubnet::from).collect(),
        }
    }
}

impl From<v1::GetRouteResponse> for Route {
    fn from(route: v1::GetRouteResponse) -> Self {
        let pod = |e: v1::ClusterEndpoint| Pod {
            ips: e.ips,
            node: e.node,
            sandbox_id: e.sandbox_id,
            ifname: e.ifname,
            network: e.network,
            namespace: e.pod_namespace,
            name: e.pod_name,
            uid: e.pod_uid,
            labels: e.labels.into_iter().collect(),
        };
        let kernel = |k: v1::KernelRoute| Kernel {
            device: k.device,
            gateway: k.gateway,
            source: k.source,
            mtu: k.mtu,
        };
        Self {
            ip: route.ip,
            node: route.node.map(NodeSubnet::from),
            pod: route.endpoint.map(pod),
            pod_problem: route.endpoint_problem,
            device: route.device,
            next_hop: route.next_hop,
            mtu: route.mtu,
            kernel: route.kernel.map(kernel),
            agrees: route.agrees,
            difference: route.difference,
        }
    }
}

impl NodeSubnet {
    fn name(&self) -> String {
        let mut name = or_dash(&self.node);
        if self.local {
            name.push_str(" (this)");
        }
        name
    }

    fn public(&self) -> String {
        let all = [self.public_ip.as_str(), self.public_ipv6.as_str()];
        let all: Vec<_> = all.into_iter().filter(|ip| !ip.is_empty()).collect();
        or_dash(&all.join(","))
    }

    fn state(&self) -> String {
        match (self.programmed, self.problem.as_str()) {
            (true, _) => "programmed".to_owned(),
            (false, "") => "not yet".to_owned(),
            (false, problem) => format!("not: {problem}"),
        }
    }
}

impl Output for Nodes {
    fn text(&self) -> String {
        let now = SystemTime::now();
        let rows = self.nodes.iter().map(|n| {
            let age = if n.reservation { "reserved".to_owned() } else { age(n.since, now) };
            vec![
                n.name(),
                or_dash(&n.subnets.join(",")),
                or_dash(&n.backend),
                n.public(),
                age,
                n.state(),
            ]
        });
        let header = ["NODE", "SUBNETS", "BACKEND", "PUBLIC", "AGE", "STATE"];
        let mut text = table(&header, rows);
        if self.behind_since > 0 {
            let since = age(self.behind_since, now);
            text.push_str(&fields(&[(
                "behind",
                format!("for {since}: {}; what was known is in force", self.behind_reason),
            )]));
        }
        text
    }
}

impl Output for Route {
    fn text(&self) -> String {
        let node = self.node.as_ref();
        let pod = match (&self.pod, self.pod_problem.as_str()) {
            (Some(p), _) if p.name.is_empty() => format!("sandbox {} {}", p.sandbox_id, p.ifname),
            (Some(p), _) => {
                format!("{}/{} (sandbox {} {})", p.namespace, p.name, p.sandbox_id, p.ifname)
            }
            (None, "") => "no pod has it".to_owned(),
            (None, problem) => format!("not known: {problem}"),
        };
        let kernel = self.kernel.as_ref().map(|k| {
            let via =
                if k.gateway.is_empty() { String::new() } else { format!("via {} ", k.gateway) };
            format!("{via}dev {} src {} mtu {}", k.device, or_dash(&k.source), k.mtu)
        });
        let agrees =
            if self.agrees { "yes".to_owned() } else { format!("no: {}", self.difference) };
        fields(&[
            ("address", self.ip.clone()),
            ("pod", pod),
            ("node", node.map_or_else(|| "of no node's subnet".to_owned(), NodeSubnet::name)),
            ("subnet", node.map(|n| n.subnets.join(",")).unwrap_or_default()),
            ("backend", node.map(|n| n.backend.clone()).unwrap_or_default()),
            ("public", node.map(NodeSubnet::public).unwrap_or_default()),
            ("device", self.device.clone()),
            ("next hop", self.next_hop.clone()),
            ("mtu", if self.mtu > 0 { self.mtu.to_string() } else { String::new() }),
            ("kernel", kernel.unwrap_or_else(|| "no route".to_owned())),
            ("agrees", agrees),
        ])
    }
}
