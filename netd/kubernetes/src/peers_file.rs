//! What a node remembers of the other Nodes on disk: as large as the cluster, written now and
//! then. Whatever is wrong with it, what can be read is used: the API has the truth.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use ipnet::{Ipv4Net, Ipv6Net};
use netd_cluster::{
    Lease, Subnets,
    flannel::value,
    membership::source::{Known, read_json, write},
};
use netd_store::Revision;
use serde::{Deserialize, Serialize};

const NAME: &str = "kubernetes-nodes.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Json {
    version: u32,
    nodes: BTreeMap<String, NodeJson>,
}

#[derive(Serialize, Deserialize)]
struct NodeJson {
    value: String,
    pod_cidr: Option<Ipv4Net>,
    pod_cidr_v6: Option<Ipv6Net>,
    created: Revision,
    modified: Revision,
    since: u64,
}

/// The Nodes by name; none where the file can't be read.
pub(crate) fn read(state_dir: &Path) -> BTreeMap<String, Known> {
    let json = read_json::<Json>(&state_dir.join(NAME), |json| json.version);
    let known = |(name, node): (String, NodeJson)| {
        let attrs = value::parse(node.value.as_bytes()).ok()?;
        let subnets = Subnets { v4: node.pod_cidr, v6: node.pod_cidr_v6 };
        let lease = Arc::new(Lease { subnets, attrs, reservation: false });
        let NodeJson { created, modified, since, .. } = node;
        Some((name, Known { lease, created, modified, since }))
    };
    json.into_iter().flat_map(|json| json.nodes).filter_map(known).collect()
}

/// Written when this returns.
///
/// # Errors
/// The system's.
pub(crate) fn save(state_dir: &Path, nodes: &BTreeMap<String, Known>) -> io::Result<()> {
    let json = |(name, known): (&String, &Known)| {
        let node = NodeJson {
            value: value::format(&known.lease.attrs),
            pod_cidr: known.lease.subnets.v4,
            pod_cidr_v6: known.lease.subnets.v6,
            created: known.created,
            modified: known.modified,
            since: known.since,
        };
        (name.clone(), node)
    };
    let json = Json { version: VERSION, nodes: nodes.iter().map(json).collect() };
    write(&state_dir.join(NAME), &serde_json::to_vec(&json)?)
}
