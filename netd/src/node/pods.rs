//! Endpoints follow what the Kubernetes API says of their pods.

use std::{sync::Arc, time::Duration};

use super::{core::Node, error::Result};
use netd_domain::{EndpointKey, Phase};
use netd_kubernetes::pods::Pods;

/// The component in `netd status`.
const COMPONENT: &str = "pods";
/// An endpoint that something else works on for longer is left for the next time: it holds up no
/// other one.
const PATIENCE: Duration = Duration::from_secs(1);

impl Node {
    /// Takes what the API says now. Endpoints of pods that are gone since are looked at at once.
    pub(crate) fn know_pods(&self, pods: Arc<Pods>) {
        match &pods.problem {
            None => self.health.good(COMPONENT),
            Some(why) => self.health.advise(
                COMPONENT,
                format!(
                    "{why}; labels of pods stay as they were, and what a pod left is removed later"
                ),
            ),
        }
        let before = self.state.set_pods(pods.clone());
        let is_news = |(endpoint, _): &(Arc<netd_domain::Endpoint>, _)| {
            pods.is_gone(&endpoint.pod) && !before.is_gone(&endpoint.pod)
        };
        if self.state.endpoints().iter().any(is_news) {
            self.orphans.notify_one();
        }
    }

    /// Gives endpoints the labels and named ports of their pods. Whether all have them.
    pub(crate) async fn describe_pods(&self) -> bool {
        let mut is_done = true;
        for (endpoint, _) in self.state.endpoints() {
            let is_right = self.state.described(&endpoint) == *endpoint;
            if endpoint.phase != Phase::Attached || is_right {
                continue;
            }
            let key = &endpoint.key;
            match tokio::time::timeout(PATIENCE, self.describe(key)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    is_done = false;
                    tracing::warn!(endpoint = %key, %error, "the labels of {key} could not be recorded: {error}; trying again");
                }
                Err(_) => is_done = false,
            }
        }
        is_done
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
