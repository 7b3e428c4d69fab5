//! Follows this node's pods in the Kubernetes API.

use std::sync::Arc;

use crate::node::Node;
use netd_kubernetes::{ApiAccess, pods};

/// Until netd ends.
pub(super) fn follow(node: &Arc<Node>, access: ApiAccess) {
    let node = Arc::clone(node);
    let mut pods = pods::follow(access, node.config().node.clone());
    tokio::spawn(async move {
        while pods.changed().await.is_ok() {
            let now = pods.borrow_and_update().clone();
            node.pods_are(now).await;
        }
    });
}
