//! Endpoints follow what the Kubernetes API says of their pods.

use std::sync::Arc;

use super::{core::Node, error::Result};
use netd_domain::{EndpointKey, Phase};
use netd_kubernetes::pods::Pods;

/// The component in `netd status`.
const COMPONENT: &str = "pods";

impl Node {
    /// Takes what the API says now: endpoints get their pods' labels and named ports, and those
    /// of pods that are gone are looked at at once.
    pub(crate) async fn pods_are(&self, pods: Arc<Pods>) {
        match &pods.problem {
            None => self.health.good(COMPONENT),
            Some(why) => self.health.advise(
                COMPONENT,
                format!(
                    "{why}; labels of pods stay as they were, and what a pod left is removed later"
                ),
            ),
        }
        self.state.set_pods(pods);
        for (endpoint, _) in self.state.endpoints() {
            if endpoint.phase != Phase::Attached {
                continue;
            }
            if self.state.pod_is_gone(&endpoint.pod) {
                self.orphans.notify_one();
            }
            if self.state.described(&endpoint) == *endpoint {
                continue;
            }
            let key = &endpoint.key;
            if let Err(error) = self.describe(key).await {
                tracing::warn!(endpoint = %key, %error, "the labels of {key} could not be recorded: {error}; trying again when its pod changes");
            }
        }
    }

    async fn describe(&self, key: &EndpointKey) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, _)) = self.state.endpoint(key) else { return Ok(()) };
        let described = self.state.described(&endpoint);
        if endpoint.phase != Phase::Attached || described == *endpoint {
            return Ok(());
        }
        self.record_change(described).await.map(drop)
    }
}
