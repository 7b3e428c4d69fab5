use netd_api::v1;
use netd_domain::access::ANY_NAMESPACE;
use serde::Serialize;

use super::{fields, or_dash, short};
use crate::terminal::{Output, table};

/// Answer of `netd network list`.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Networks {
    networks: Vec<Network>,
    /// Subnets whose addresses netd assigns for networks of other programs.
    #[serde(rename = "externalPools")]
    external_pools: Vec<ExternalPool>,
}

#[derive(Debug, Serialize)]
struct ExternalPool {
    subnet: String,
    used: u64,
}

/// One network with its use.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Network {
    name: String,
    driver: String,
    bridge: String,
    mtu: u32,
    configured_mtu: u32,
    masquerade: bool,
    internal: bool,
    published_only: bool,
    allow_host_overlap: bool,
    repair: String,
    ready: bool,
    problem: String,
    endpoints: u32,
    pools: Vec<Pool>,
    /// Subnets of this node that docker0 gives out.
    docker0: Vec<String>,
    /// Namespaces whose pods may use it.
    pod_namespaces: Vec<String>,
    pod_addresses: bool,
    pod_macs: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pool {
    subnet: String,
    gateway: String,
    range_start: String,
    range_end: String,
    reserved: Vec<String>,
    size: u64,
    used: u64,
}

impl From<v1::ListNetworksResponse> for Networks {
    fn from(list: v1::ListNetworksResponse) -> Self {
        let external = list.external_pools.into_iter();
        let external = external.map(|pool| ExternalPool { subnet: pool.subnet, used: pool.used });
        Self {
            networks: list.networks.into_iter().map(Network::from).collect(),
            external_pools: external.collect(),
        }
    }
}

impl From<v1::NetworkStatus> for Network {
    fn from(status: v1::NetworkStatus) -> Self {
        let network = status.network.unwrap_or_default();
        let usage = status.pools;
        let pool = |p: v1::Pool| {
            let used = usage.iter().find(|u| u.subnet == p.subnet);
            Pool {
                size: used.map_or(0, |u| u.size),
                used: used.map_or(0, |u| u.used),
                subnet: p.subnet,
                gateway: p.gateway,
                range_start: p.range_start,
                range_end: p.range_end,
                reserved: p.reserved,
            }
        };
        let access = network.pods.clone().unwrap_or_default();
        Self {
            pod_namespaces: access.namespaces,
            pod_addresses: access.addresses,
            pod_macs: access.macs,
            driver: short(network.driver().as_str_name(), "DRIVER_"),
            repair: short(network.repair().as_str_name(), "REPAIR_SCOPE_"),
            name: network.name,
            bridge: network.bridge,
            mtu: status.mtu,
            configured_mtu: network.mtu,
            masquerade: network.masquerade,
            internal: network.internal,
            published_only: network.published_only,
            allow_host_overlap: network.allow_host_overlap,
            ready: status.ready,
            problem: status.problem,
            endpoints: status.endpoints,
            pools: network.pools.into_iter().map(pool).collect(),
            docker0: network.docker0,
        }
    }
}

impl Network {
    fn subnets(&self) -> String {
        let all: Vec<_> = self.pools.iter().map(|p| p.subnet.as_str()).collect();
        or_dash(&all.join(","))
    }
    /// Which pods may use it, and what they may choose.
    fn pods(&self) -> String {
        let any = |name: &String| name == ANY_NAMESPACE;
        let mut text = match self.pod_namespaces.as_slice() {
            [] => return "of no namespace".to_owned(),
            all if all.iter().any(any) => "of all namespaces".to_owned(),
            some => format!("of {}", some.join(", ")),
        };
        for (may, what) in [(self.pod_addresses, "addresses"), (self.pod_macs, "MAC addresses")] {
            if may {
                text.push_str(&format!("; may choose {what}"));
            }
        }
        text
    }
    fn state(&self) -> String {
        match (self.ready, self.problem.as_str()) {
            (true, _) => "ready".to_owned(),
            (false, "") => "not ready".to_owned(),
            (false, problem) => format!("not ready: {problem}"),
        }
    }
}

impl Output for Networks {
    fn text(&self) -> String {
        let rows = self.networks.iter().map(|n| {
            vec![
                n.name.clone(),
                n.driver.clone(),
                n.subnets(),
                n.mtu.to_string(),
                n.endpoints.to_string(),
                n.state(),
            ]
        });
        let mut text = table(&["NAME", "DRIVER", "SUBNETS", "MTU", "ENDPOINTS", "STATE"], rows);
        if !self.external_pools.is_empty() {
            let row = |pool: &ExternalPool| vec![pool.subnet.clone(), pool.used.to_string()];
            text.push('\n');
            let header = ["ADDRESSES FOR DOCKER'S DRIVERS", "USED"];
            text.push_str(&table(&header, self.external_pools.iter().map(row)));
        }
        text
    }
}

impl Output for Network {
    fn text(&self) -> String {
        let outwards = match (self.internal, self.masquerade) {
            (true, _) => "no way out",
            (false, true) => "masqueraded",
            (false, false) => "with the pods' own addresses",
        };
        let inwards = match (self.internal, self.published_only) {
            (true, _) => "no way in",
            (false, true) => "host ports only",
            (false, false) => "",
        };
        let overlap =
            if self.allow_host_overlap { "with the host's networks, allowed" } else { "" };
        let bridge = if self.driver == "bridge" { self.bridge.clone() } else { String::new() };
        let mut text = fields(&[
            ("name", self.name.clone()),
            ("state", self.state()),
            ("driver", self.driver.clone()),
            ("bridge", bridge),
            ("mtu", self.mtu.to_string()),
            ("outwards", outwards.to_owned()),
            ("inwards", inwards.to_owned()),
            ("repair", self.repair.clone()),
            ("overlap", overlap.to_owned()),
            ("endpoints", self.endpoints.to_string()),
            ("docker0", self.docker0.join(",")),
            ("pods", self.pods()),
        ]);
        let rows = self.pools.iter().map(|p| {
            let range = match (p.range_start.as_str(), p.range_end.as_str()) {
                ("", "") => "all".to_owned(),
                (first, last) => format!("{} to {}", or_dash(first), or_dash(last)),
            };
            let used = format!("{} of {}", p.used, p.size);
            vec![p.subnet.clone(), p.gateway.clone(), range, used, or_dash(&p.reserved.join(","))]
        });
        text.push('\n');
        text.push_str(&table(&["POOL", "GATEWAY", "RANGE", "USED", "RESERVED"], rows));
        text
    }
}
