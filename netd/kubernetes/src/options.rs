//! What a node is told when the Kubernetes API is its source.

use std::{path::PathBuf, time::Duration};

use tokio::sync::watch;

use crate::{annotations::AnnotationPrefix, events::Problems};

/// How the API is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// `None`: by the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Another address than the one that the kubeconfig or the pod's environment names.
    pub url: Option<http::Uri>,
    /// Of one request.
    pub timeout: Duration,
}

/// What a node is told about its part in the cluster.
#[derive(Debug)]
pub struct KubernetesOptions {
    /// How the API is reached.
    pub access: ApiAccess,
    /// The name of this machine's Node.
    pub node_name: String,
    /// Before the names of the annotations.
    pub prefix: AnnotationPrefix,
    /// flannel's net-conf.json.
    pub net_conf: PathBuf,
    /// A directory that outlives a reboot; made if it is not there.
    pub state_dir: PathBuf,
    /// How long Nodes stay in force that vanished together with most others.
    pub hold: Duration,
    /// What the Node's condition NetworkUnavailable is to say: `Ok`: the node is ready, or why
    /// not. `None`: the condition is left alone.
    pub readiness: Option<watch::Receiver<Result<(), String>>>,
    /// What the Node's events are to tell.
    pub problems: watch::Receiver<Problems>,
}
