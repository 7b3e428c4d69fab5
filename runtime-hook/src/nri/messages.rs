//! The protobuf messages of NRI, with the fields that the front uses; decoding skips the
//! others. They are written by hand, because these few need no protobuf compiler. Source:
//! `pkg/api/api.proto` of containerd/nri (0.3 to 0.12). They are public for the tests, which
//! act as containerd.

use std::collections::BTreeMap;

pub use netd_api::ttrpc::{Request, Response, Status};

/// The service of the plugin.
pub const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
/// The service of the runtime.
pub(crate) const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";

#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterPluginRequest {
    #[prost(string, tag = "1")]
    pub plugin_name: String,
    #[prost(string, tag = "2")]
    pub plugin_idx: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigureRequest {
    #[prost(string, tag = "1")]
    pub config: String,
    #[prost(string, tag = "2")]
    pub runtime_name: String,
    #[prost(string, tag = "3")]
    pub runtime_version: String,
    /// Timeout of the runtime's later requests in milliseconds; NRI before 0.7 sends 0.
    #[prost(int64, tag = "5")]
    pub request_timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigureResponse {
    /// Bit `event - 1` subscribes to the event.
    #[prost(int32, tag = "2")]
    pub events: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SynchronizeRequest {
    #[prost(message, repeated, tag = "1")]
    pub pods: Vec<PodSandbox>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SynchronizeResponse {
    #[prost(bool, tag = "2")]
    pub more: bool,
}

/// `RunPodSandboxRequest`, `StopPodSandboxRequest` and `RemovePodSandboxRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PodRequest {
    #[prost(message, optional, tag = "1")]
    pub pod: Option<PodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct StateChangeEvent {
    #[prost(int32, tag = "1")]
    pub event: i32,
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodSandbox>,
}

/// No fields; also the request and the response of `StateChange` and `Shutdown`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandbox {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub uid: String,
    #[prost(string, tag = "4")]
    pub namespace: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "6")]
    pub annotations: BTreeMap<String, String>,
    #[prost(string, tag = "7")]
    pub runtime_handler: String,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandbox {
    #[prost(message, repeated, tag = "5")]
    pub namespaces: Vec<LinuxNamespace>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxNamespace {
    #[prost(string, tag = "1")]
    pub r#type: String,
    #[prost(string, tag = "2")]
    pub path: String,
}

impl PodSandbox {
    /// Path of the pod's network namespace; `None` for a host-network pod, and for every pod in
    /// the StopPodSandbox event of containerd 1.7 and 2.0.
    pub fn netns(&self) -> Option<&str> {
        let namespaces = &self.linux.as_ref()?.namespaces;
        let network = namespaces.iter().find(|n| n.r#type == "network")?;
        Some(network.path.as_str()).filter(|path| !path.is_empty())
    }
}

/// Values of NRI's `Event`.
pub mod event {
    /// The pod's sandbox runs; no container of the pod exists yet.
    pub(crate) const RUN_POD_SANDBOX: i32 = 1;
    /// The sandbox stops; with containerd its network namespace still exists.
    pub(crate) const STOP_POD_SANDBOX: i32 = 2;
    /// The sandbox is removed.
    pub(crate) const REMOVE_POD_SANDBOX: i32 = 3;
    /// These three as `ConfigureResponse.events`. 0 would subscribe to all events, and for an
    /// unknown bit the runtime disconnects the plugin.
    pub(crate) const SUBSCRIBED: i32 = 0x7;
}
