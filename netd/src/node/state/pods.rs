//! What the Kubernetes API says of this node's pods.

use std::sync::Arc;

use super::node_state::{Inner, NodeState};
use netd_domain::{Endpoint, PodIdentity};
use netd_kubernetes::pods::Pods;

impl Inner {
    /// Takes over what the API says of the endpoint's pod, which is newer than what the runtime
    /// said when the sandbox was made.
    pub(super) fn describe(&self, endpoint: &mut Endpoint) {
        if let Some(facts) = self.pods.get(&endpoint.pod) {
            if let Some(labels) = &facts.labels {
                endpoint.labels.clone_from(labels);
                endpoint.labels_of_api = true;
            }
            endpoint.named_ports.clone_from(&facts.ports);
        }
    }
}

impl NodeState {
    /// Replaces what is known of pods; what was known before.
    pub(crate) fn set_pods(&self, pods: Arc<Pods>) -> Arc<Pods> {
        std::mem::replace(&mut self.inner.lock().pods, pods)
    }

    /// Whether the API says that there is no such pod.
    pub(crate) fn pod_is_gone(&self, pod: &PodIdentity) -> bool {
        self.inner.lock().pods.is_gone(pod)
    }

    /// The endpoint as the API describes its pod now.
    pub(crate) fn described(&self, endpoint: &Endpoint) -> Endpoint {
        let mut described = endpoint.clone();
        self.inner.lock().describe(&mut described);
        described
    }
}
