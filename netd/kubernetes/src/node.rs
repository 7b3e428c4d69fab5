//! A Node as the API has it, and what of it counts here. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ClusterResourceScope;
use netd_cluster::Subnets;
use netd_domain::pool::unusable;
use netd_store::Revision;
use serde::Deserialize;

use crate::{annotations::AnnotationPrefix, condition::Condition};

/// Longest name that is taken, bytes: a DNS name (RFC 1123).
const MAX_NAME: usize = 253;

/// The fields of a Node that are read; all others are skipped while they are parsed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

impl kube::Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What counts of a Node.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NodeFacts {
    pub name: String,
    /// Another one after the Node was deleted and made again.
    pub uid: String,
    /// Seconds since the epoch: of two Nodes that clash the older one is in force.
    pub created: Revision,
    pub revision: Revision,
    /// `spec.podCIDRs`; `None`: not assigned yet.
    pub subnets: Result<Option<Subnets>, String>,
    /// Those with netd's prefix.
    pub annotations: BTreeMap<String, String>,
    /// NetworkUnavailable.
    pub condition: Option<Condition>,
}

impl NodeFacts {
    /// `None`: an object without a name, which the API never sends.
    pub(crate) fn of(node: Node, prefix: &AnnotationPrefix) -> Option<Self> {
        let Node { metadata, spec, status } = node;
        let name = metadata.name.filter(|name| !name.is_empty() && name.len() <= MAX_NAME)?;
        let revision = metadata.resource_version.and_then(|text| text.parse().ok());
        let all = metadata.annotations.unwrap_or_default().into_iter();
        Some(Self {
            name,
            uid: metadata.uid.unwrap_or_default(),
            created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
            revision: revision.unwrap_or(0),
            subnets: subnets(&spec),
            annotations: all.filter(|(key, _)| prefix.is_of(key)).collect(),
            condition: status.conditions.into_iter().find(Condition::is_network_unavailable),
        })
    }

    /// Its podCIDRs.
    ///
    /// # Errors
    /// There are none, or they can't be used: in words, with the Node's name.
    pub(crate) fn assigned(&self) -> Result<Subnets, String> {
        let name = &self.name;
        let subnets = self.subnets.as_ref().map_err(|why| format!("Node {name}: {why}"))?;
        subnets.ok_or_else(|| {
            format!(
                "Node {name} has no spec.podCIDRs: kube-controller-manager assigns them with \
                 --allocate-node-cidrs and --cluster-cidr"
            )
        })
    }
}

fn subnets(spec: &Spec) -> Result<Option<Subnets>, String> {
    let one = std::slice::from_ref(&spec.pod_cidr);
    let all = if spec.pod_cidrs.is_empty() { one } else { &spec.pod_cidrs };
    let mut subnets = Subnets { v4: None, v6: None };
    for text in all.iter().filter(|text| !text.is_empty()) {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(64).collect();
            format!("spec.podCIDRs: {shown:?} {why}")
        };
        let net: IpNet = text.parse().map_err(|_| wrong("is not a subnet like 10.244.1.0/24"))?;
        let net = net.trunc();
        if let Some(what) = unusable(net.addr()) {
            return Err(wrong(&format!("is {what}; pods can't have it")));
        }
        let taken = match net {
            IpNet::V4(v4) if (1..=30).contains(&v4.prefix_len()) => {
                subnets.v4.replace(v4).is_some()
            }
            IpNet::V6(v6) if (1..=126).contains(&v6.prefix_len()) => {
                subnets.v6.replace(v6).is_some()
            }
            _ => return Err(wrong("has a prefix length of which no pods can be")),
        };
        if taken {
            return Err(wrong("is the second one of its family"));
        }
    }
    Ok((subnets.v4.is_some() || subnets.v6.is_some()).then_some(subnets))
}
