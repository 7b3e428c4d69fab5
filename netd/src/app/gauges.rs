//! Gauges that are cheaper to set every few seconds than on every change.

use std::{sync::Arc, time::Duration};

use crate::node::Node;

/// Shorter than common scrape intervals (15 s to 60 s).
const INTERVAL: Duration = Duration::from_secs(5);

/// Sets the gauges every [`INTERVAL`]; never returns.
pub(super) async fn follow(node: Arc<Node>) {
    loop {
        let counts = node.counts();
        let attached = counts.endpoints - counts.attaching - counts.detaching;
        let metrics = node.metrics();
        metrics.set_endpoints("attaching", counts.attaching);
        metrics.set_endpoints("attached", attached);
        metrics.set_endpoints("detaching", counts.detaching);
        for view in node.networks() {
            for pool in &view.pools {
                metrics.set_pool(&view.state.network.name, pool.subnet, pool.size, pool.used);
            }
        }
        if let Ok(overlay) = node.overlay() {
            overlay.measure(&*node).await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
