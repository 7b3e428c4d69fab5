//! The gRPC API: checks requests and turns them into domain values, calls the node, and
//! turns results and errors into answers.

mod attach_request;
mod cluster;
mod convert;
mod daemon_info;
mod endpoint;
mod error;
mod error_metadata;
pub(crate) mod hook;
mod network;
mod network_request;
mod node;
mod sandbox;
mod transport;
mod watch;

use std::sync::Arc;

use netd_api::v1::{
    cluster_service_server::ClusterServiceServer, endpoint_service_server::EndpointServiceServer,
    network_service_server::NetworkServiceServer, node_service_server::NodeServiceServer,
    sandbox_service_server::SandboxServiceServer,
};
use tonic::{Status, service::RoutesBuilder};

use crate::node::Node;
#[cfg(feature = "fuzzing")]
pub(crate) use attach_request::attach as check_attach;
pub(crate) use daemon_info::{Capability, DaemonInfo};
#[cfg(feature = "fuzzing")]
pub(crate) use network_request::network as check_network;
pub(crate) use node::FORWARDING;
#[cfg(feature = "fuzzing")]
pub(crate) use sandbox::sandbox as check_sandbox;
use transport::MAX_REQUEST_BYTES;
pub(crate) use transport::{CallLimits, accept};

/// Serves a node's API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) node: Arc<Node>,
    pub(crate) info: Arc<DaemonInfo>,
    /// Becomes true when netd stops; watches end then.
    stop: tokio::sync::watch::Receiver<bool>,
}

/// Full names of netd's services.
pub(crate) const SERVICES: [&str; 5] = [
    netd_api::v1::cluster_service_server::SERVICE_NAME,
    netd_api::v1::network_service_server::SERVICE_NAME,
    netd_api::v1::endpoint_service_server::SERVICE_NAME,
    netd_api::v1::sandbox_service_server::SERVICE_NAME,
    netd_api::v1::node_service_server::SERVICE_NAME,
];

impl Api {
    /// The API of `node`. Watches end when `stop` becomes true.
    pub(crate) fn new(
        node: Arc<Node>,
        info: DaemonInfo,
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self { node, info: Arc::new(info), stop }
    }

    /// Adds every service, and reflection (v1 and v1alpha).
    ///
    /// # Errors
    /// The file descriptors that are built into this binary can't be decoded.
    pub(crate) fn add_to(&self, routes: &mut RoutesBuilder) -> Result<(), Status> {
        let max = MAX_REQUEST_BYTES;
        routes
            .add_service(ClusterServiceServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(NetworkServiceServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(EndpointServiceServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(SandboxServiceServer::new(self.clone()).max_decoding_message_size(max))
            .add_service(NodeServiceServer::new(self.clone()).max_decoding_message_size(max));
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(netd_api::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // The details of a refusal, which clients without files have to decode, too.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        let broken = |e| Status::internal(format!("reflection: {e}"));
        routes
            .add_service(reflection().build_v1().map_err(broken)?)
            .add_service(reflection().build_v1alpha().map_err(broken)?);
        Ok(())
    }
}
