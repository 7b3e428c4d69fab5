//! What a node remembers of itself on disk, so that it goes on without the API.

use std::{io, path::Path};

use ipnet::{Ipv4Net, Ipv6Net};
use netd_cluster::{
    LeaseAttrs, Subnets,
    flannel::value,
    membership::source::{read_json, write},
};
use serde::{Deserialize, Serialize};

const NAME: &str = "kubernetes.json";
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct OwnFile {
    /// The Node's name; empty: nothing is remembered.
    pub node: String,
    /// net-conf.json as it was read.
    pub config: Option<String>,
    /// What was announced last.
    pub attrs: Option<LeaseAttrs>,
    /// The Node's podCIDRs, and since when, seconds since the epoch.
    pub held: Option<(Subnets, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: u32,
    node: String,
    config: Option<String>,
    announced: Option<String>,
    pod_cidr: Option<Ipv4Net>,
    pod_cidr_v6: Option<Ipv6Net>,
    since: u64,
}

impl OwnFile {
    /// As it was written last; empty where there is nothing that can be read.
    pub(crate) fn read(state_dir: &Path) -> Self {
        let json = read_json::<Json>(&state_dir.join(NAME), |json| json.version);
        json.map(Self::of).unwrap_or_default()
    }

    fn of(json: Json) -> Self {
        let subnets = Subnets { v4: json.pod_cidr, v6: json.pod_cidr_v6 };
        let some = subnets.v4.is_some() || subnets.v6.is_some();
        Self {
            node: json.node,
            config: json.config,
            attrs: json.announced.and_then(|text| value::parse(text.as_bytes()).ok()),
            held: some.then_some((subnets, json.since)),
        }
    }

    /// Written when this returns, also if power fails.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let json = Json {
            version: VERSION,
            node: self.node.clone(),
            config: self.config.clone(),
            announced: self.attrs.as_ref().map(value::format),
            pod_cidr: self.held.and_then(|(subnets, _)| subnets.v4),
            pod_cidr_v6: self.held.and_then(|(subnets, _)| subnets.v6),
            since: self.held.map_or(0, |(_, since)| since),
        };
        write(&state_dir.join(NAME), &serde_json::to_vec_pretty(&json)?)
    }
}
