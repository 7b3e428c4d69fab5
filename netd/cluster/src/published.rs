//! An endpoint's record in etcd, which every node of the cluster can read. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use netd_domain::Endpoint;

/// The record of one address under netd's own prefix: which pod has it, and where.
/// Bound to its node's lease. It is shown to people; no decision depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// The node's name.
    pub node: String,
    /// The sandbox's id.
    pub sandbox: String,
    /// The interface in the sandbox.
    pub ifname: String,
    /// The network's name.
    pub network: String,
    /// All addresses of the endpoint.
    pub addresses: Vec<IpAddr>,
    /// The pod's namespace, name and uid; empty where the runtime did not say.
    #[serde(default)]
    pub namespace: String,
    /// See `namespace`.
    #[serde(default)]
    pub name: String,
    /// See `namespace`.
    #[serde(default)]
    pub uid: String,
    /// The pod's labels; left out where they are larger than [`MAX_LABELS`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// Bytes of labels that are published: etcd's values and transactions are bounded.
pub(crate) const MAX_LABELS: usize = 8 << 10;

impl Published {
    /// What of `endpoint` is published.
    pub fn of(node: &str, endpoint: &Endpoint) -> Self {
        let bytes: usize = endpoint.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        let labels = if bytes > MAX_LABELS { BTreeMap::new() } else { endpoint.labels.clone() };
        Self {
            node: node.to_owned(),
            sandbox: endpoint.key.sandbox.to_string(),
            ifname: endpoint.key.ifname.to_string(),
            network: endpoint.network.to_string(),
            addresses: endpoint.ips().collect(),
            namespace: endpoint.pod.namespace.clone(),
            name: endpoint.pod.name.clone(),
            uid: endpoint.pod.uid.clone(),
            labels,
        }
    }
}
