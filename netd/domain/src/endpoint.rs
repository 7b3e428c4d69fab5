//! The record of an endpoint.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{
    ids::{EndpointKey, NetnsId, NetworkName},
    port_mapping::NamedPort,
    record_format,
    request_digest::RequestDigest,
    wiring::{PodSide, Route, Wiring},
};

/// The pod's identity, as the runtime gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
}

/// Resolver settings; netd only stores them for the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// IP addresses of name servers.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// What the kernel is to hold of an endpoint. The record is written before any kernel work,
/// so `Attached` says what is intended, not what is the case already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The kernel must hold the wiring.
    Attached,
    /// The kernel must not hold it; the addresses stay in use until the link is gone.
    Detaching,
}

/// The record of an endpoint, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity.
    pub key: EndpointKey,
    /// The network it joins.
    pub network: NetworkName,
    /// What is wanted.
    pub phase: Phase,
    /// Path of the sandbox's network namespace, absolute; `None`: it is in no sandbox, which
    /// only an endpoint of the container network model can be.
    #[serde(with = "record_format::path")]
    pub netns_path: Option<PathBuf>,
    /// Identity of that namespace; with `netns_path`, the fence against another sandbox of
    /// the same id. `None`: netd has not seen the pod's side in a sandbox yet.
    #[serde(with = "record_format::id")]
    pub netns: Option<NetnsId>,
    /// The path did not lead netd to the namespace: a hook in PID or mount namespaces of
    /// its own gave it, and the namespace as a descriptor. netd can't enter it again by
    /// itself, so what is in the sandbox is put right only when the runtime asks (ADD
    /// again, CHECK); the namespace counts as gone when the host's end of the pair is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_is_foreign: bool,
    /// What the kernel has to hold.
    #[serde(with = "record_format::shared")]
    pub wiring: Arc<Wiring>,
    /// The caller asked for this MTU: it does not follow the network's.
    #[serde(default)]
    pub fixed_mtu: bool,
    /// Who the pod is.
    pub pod: PodIdentity,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The labels are the Kubernetes API's, which is newer than what the runtime knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub labels_of_api: bool,
    /// The ports of the pod's containers that have a name, as far as the Kubernetes API told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named_ports: Vec<NamedPort>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Resolver settings.
    pub dns: Dns,
    /// Seconds since the Unix epoch.
    pub created_at: i64,
    /// CLOCK_BOOTTIME, ns, of the request that led to the present phase.
    pub issued_at: u64,
    /// Name of the caller: `cni/NETWORK`, `nri`, `docker`, ...
    #[serde(default)]
    pub source: String,
    /// Strictly increasing over attaches and releases on this node: the order in
    /// which addresses were taken and given back.
    pub sequence: u64,
    /// What was asked for; `None`: by an endpoint of the container network model, or recorded by
    /// a release that did not keep it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestDigest>,
    /// `None`: netd makes the pod's side in the sandbox (CNI, NRI, OCI).
    #[serde(default, rename = "moved", skip_serializing_if = "Option::is_none")]
    pub runtime_placed: Option<RuntimePlaced>,
}

/// What is particular to an endpoint whose pod's side the runtime moves into the sandbox:
/// that is the order of the container network model (CNM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimePlaced {
    /// How far the runtime is.
    pub stage: Stage,
    /// Routes that the runtime sets in the sandbox. It changes them as networks come and
    /// go, so netd sets them only when it has to make the pair again.
    pub routes: Vec<Route>,
    /// The sandbox's default routes lead through this endpoint.
    #[serde(rename = "leads_out")]
    pub is_gateway: bool,
    /// Addresses that the runtime reserved before: they stay reserved when the endpoint
    /// goes, until the runtime releases them.
    pub leased: Vec<IpAddr>,
}

/// How far a runtime is with an endpoint of the container network model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// In no sandbox: it has not joined one, or has left it.
    Created,
    /// The pod's side is on the host; the runtime is to move it to the sandbox at
    /// `netns_path`.
    #[serde(rename = "handed")]
    Pending,
    /// netd has seen the pod's side in the sandbox.
    Placed,
}

impl Endpoint {
    /// Where the pod's side is, as far as netd has seen it.
    pub fn pod_side(&self) -> PodSide {
        match self.stage() {
            None | Some(Stage::Placed) => PodSide::Placed,
            Some(Stage::Created | Stage::Pending) => PodSide::Pending,
        }
    }

    /// How far the runtime is; `None`: netd makes the pod's side itself.
    pub fn stage(&self) -> Option<Stage> {
        self.runtime_placed.as_ref().map(|placed| placed.stage)
    }

    /// Whether a runtime moves the pod's side, and has said to which sandbox.
    pub fn is_joined(&self) -> bool {
        self.stage().is_some_and(|stage| stage != Stage::Created)
    }

    /// The path of its namespace for people; empty if it is in no sandbox.
    pub fn netns_display(&self) -> std::path::Display<'_> {
        self.netns_path.as_deref().unwrap_or(Path::new("")).display()
    }

    /// Whether `source` attached it: its own source is the same, or begins with `source` and a
    /// slash (`docker` for `docker/NETWORK`).
    pub fn is_of_source(&self, source: &str) -> bool {
        let rest = self.source.strip_prefix(source);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The addresses it holds.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wiring.ips()
    }
}

/// The trace of an endpoint, kept for a while after its detach: an attach issued before the
/// detach is refused, and the addresses are the last to be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Identity of the endpoint, which may not have existed when it was detached.
    pub key: EndpointKey,
    /// CLOCK_BOOTTIME, ns, of the detach request.
    pub issued_at: u64,
    /// Seconds since the Unix epoch, when the addresses were given back.
    pub released_at: i64,
    /// The network whose addresses it had.
    pub network: Option<NetworkName>,
    /// The addresses given back.
    pub addresses: Vec<IpAddr>,
    /// As [`Endpoint::sequence`].
    pub sequence: u64,
}
