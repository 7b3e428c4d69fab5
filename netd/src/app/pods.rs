//! Follows this node's pods in the Kubernetes API.

use std::{sync::Arc, time::Duration};

use crate::node::Node;
use netd_domain::Backoff;
use netd_kubernetes::{ApiAccess, pods};

/// Between attempts to record what the API said.
const RETRY: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Until netd ends.
pub(super) fn follow(node: &Arc<Node>, access: ApiAccess) {
    let node = Arc::clone(node);
    let mut pods = pods::follow(access, node.config().node.clone());
    tokio::spawn(async move {
        let mut retry = RETRY;
        while pods.changed().await.is_ok() {
            let now = pods.borrow_and_update().clone();
            node.know_pods(now);
            while !node.describe_pods().await && !pods.has_changed().unwrap_or(true) {
                tokio::time::sleep(retry.next_delay(fastrand::f64())).await;
            }
            retry.reset();
        }
    });
}
