//! A pod as the API has it, and what of it counts here. Pure.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use netd_domain::{NamedPort, PodIdentity, Protocol};
use serde::Deserialize;

/// The uid under which kubelet runs a static pod; the pod in the API is its mirror, which has
/// another one.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Bytes of labels that are taken. More than that no one has; a record has to have room for them.
const MAX_LABEL_BYTES: usize = 64 << 10;
/// Named ports that are taken.
const MAX_PORTS: usize = 1024;

/// The fields of a pod that are read; all others are skipped while they are parsed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    host_network: bool,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    ports: Vec<Port>,
    /// Of init containers: "Always" makes a sidecar, which stays.
    restart_policy: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
    protocol: String,
}

impl kube::Resource for Pod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What counts of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    /// Who it is, by the uid that the runtime knows it by.
    pub identity: PodIdentity,
    /// Its labels now; `None`: a record has no room for them.
    pub labels: Option<BTreeMap<String, String>>,
    /// The ports of its containers that have a name.
    pub ports: Vec<NamedPort>,
    /// It is in the host's network namespace: it has no endpoint.
    pub host_network: bool,
}

impl PodFacts {
    /// `None`: an object without a name or a uid, which the API never sends.
    pub(crate) fn of(pod: Pod) -> Option<Self> {
        let Pod { metadata, spec } = pod;
        let mirrored = metadata.annotations.and_then(|mut all| all.remove(MIRROR));
        let uid = mirrored.or(metadata.uid).filter(|uid| !uid.is_empty())?;
        let identity = PodIdentity { namespace: metadata.namespace?, name: metadata.name?, uid };
        let labels = metadata.labels.unwrap_or_default();
        let sidecars = spec.init_containers.into_iter().filter(|c| c.restart_policy == "Always");
        let ports = spec.containers.into_iter().chain(sidecars).flat_map(|c| c.ports);
        Some(Self {
            identity,
            labels: (length(&labels) <= MAX_LABEL_BYTES).then_some(labels),
            ports: ports.filter_map(Port::named).take(MAX_PORTS).collect(),
            host_network: spec.host_network,
        })
    }
}

fn length(labels: &BTreeMap<String, String>) -> usize {
    labels.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Port {
    fn named(self) -> Option<NamedPort> {
        let protocol = match self.protocol.as_str() {
            "" | "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => return None,
        };
        let Self { name, container_port: port, .. } = self;
        (!name.is_empty() && port != 0).then_some(NamedPort { name, port, protocol })
    }
}
