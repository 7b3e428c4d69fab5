//! Starts to follow the cluster.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::{capacity, core::Overlay, local_node::LocalNode, publish, watch_wireguard};
use netd_cluster::membership::Update;

impl Overlay {
    /// Follows the cluster's updates until netd ends. The first update brings the leases that
    /// were known before the restart. They are in force when this returns, unless the update
    /// takes longer than a second, so that pods that are attached next get the same subnet and
    /// MTU as before.
    pub async fn start(
        self: Arc<Self>,
        node: Arc<dyn LocalNode>,
        mut updates: mpsc::Receiver<Update>,
    ) {
        const FIRST_UPDATE_TIMEOUT: Duration = Duration::from_secs(1);
        node.health().bad("overlay", "waiting for the cluster's configuration and a subnet");
        // Until it is told which subnets are this node's, its pools are those of the last run,
        // which may be another machine's by now.
        let deadline = tokio::time::Instant::now() + FIRST_UPDATE_TIMEOUT;
        while let Ok(Some(news)) = tokio::time::timeout_at(deadline, batch(&mut updates)).await {
            self.on_update(&*node, news).await;
            if self.state.lock().await.own_known {
                break;
            }
        }
        if let Some(etcd) = self.etcd.clone() {
            tokio::spawn(publish::run(self.clone(), node.clone(), etcd));
        }
        tokio::spawn(capacity::run(self.clone(), node.clone()));
        tokio::spawn(watch_wireguard::run(self.clone(), node.clone()));
        tokio::spawn(async move {
            while let Some(news) = batch(&mut updates).await {
                self.on_update(&*node, news).await;
            }
        });
    }
}

/// All updates that have arrived, at least one; `None` after the last.
async fn batch(updates: &mut mpsc::Receiver<Update>) -> Option<Vec<Update>> {
    const MAX_UPDATES: usize = 1024;
    let mut all = Vec::new();
    (updates.recv_many(&mut all, MAX_UPDATES).await > 0).then_some(all)
}
