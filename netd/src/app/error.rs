//! Why netd ends.

use std::path::PathBuf;

use super::{join::ClusterError, listener::ListenError, netns_lock::LockError};
use crate::node;
use netd_dataplane::DataplaneError;
use netd_store::StoreError;

/// Why netd ended by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// Capabilities that every netd needs, with what they are for.
    #[error(
        "{0}: run netd as root, and grant it that (in the unit by CapabilityBoundingSet=, in a \
         container by securityContext.capabilities.add)"
    )]
    Privileges(String),
    /// Another netd works in this network namespace.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The API's socket could not be made or taken over.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store could not be opened, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel refused what netd needs at start.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The stored records could not be read, or not be made true.
    #[error("start: {0}")]
    Start(#[from] node::Error),
    /// A state directory could not be made.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The settings of the cluster are unusable.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A part of the node can't go on.
    #[error("{0}; netd has to be started again")]
    Broken(String),
    /// The gRPC server failed.
    #[error("gRPC server: {0}")]
    Grpc(String),
    /// The server of the hooks' socket failed.
    #[error("hooks' socket: {0}")]
    Hooks(std::io::Error),
    /// SIGTERM and SIGINT could not be caught.
    #[error("signals: {0}")]
    Signals(std::io::Error),
}
