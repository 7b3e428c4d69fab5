//! The node as a member of a cluster: it holds the overlay, and serves it as [`LocalNode`].

use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::{Notify, mpsc};

use super::{
    core::Node,
    error::{Error, Result},
    health::Health,
    overlay::{LocalNode, Overlay},
    queue::Target,
    state::NetworkState,
};
use crate::config::Config;
use crate::metrics::Metrics;
use netd_cluster::membership::Update;
use netd_dataplane::{Dataplane, Repair};
use netd_domain::{Endpoint, NetworkName, NetworkWiring, ipam::PoolUsage, network::Leased};
use netd_store::Store;

impl Node {
    /// Makes the node a member of its cluster; to be called once. Returns when the leases
    /// that were known before the restart are in force, or after a second.
    pub(crate) async fn join_cluster(
        self: &Arc<Self>,
        overlay: Arc<Overlay>,
        updates: mpsc::Receiver<Update>,
    ) {
        // An error says that it was set before.
        let _ = self.overlay.set(overlay.clone());
        overlay.start(self.clone(), updates).await;
    }

    /// The node's part of the cluster.
    ///
    /// # Errors
    /// [`Error::NoOverlay`].
    pub fn overlay(&self) -> Result<&Arc<Overlay>> {
        self.overlay.get().ok_or(Error::NoOverlay)
    }
}

#[async_trait]
impl LocalNode for Node {
    fn config(&self) -> &Config {
        &self.config
    }

    fn health(&self) -> &Health {
        &self.health
    }

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.state.endpoints().into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    fn network(&self, name: &NetworkName) -> Option<NetworkState> {
        self.state.network(name)
    }

    fn pool_usage(&self, name: &NetworkName) -> Vec<PoolUsage> {
        self.state.usage(name)
    }

    fn is_unused(&self, name: &NetworkName, subnet: IpNet) -> bool {
        self.state.is_unused(name, subnet)
    }

    async fn set_pools(&self, name: &NetworkName, subnets: &[IpNet], leased: Leased) -> Result<()> {
        self.set_leased_pools(name, subnets, leased).await
    }

    async fn remove_pools(&self, name: &NetworkName, subnets: &[IpNet]) -> Result<bool> {
        self.remove_empty_pools(name, subnets).await
    }

    fn pools_changed(&self) -> &Notify {
        &self.pools_changed
    }

    async fn docker0_in(
        &self,
        wiring: &NetworkWiring,
        subnets: Vec<IpNet>,
    ) -> Result<Option<IpNet>> {
        self.find_docker0(wiring, subnets).await
    }

    fn count_repairs(&self, repairs: &[Repair], is_drift: bool) {
        self.count(&"overlay", &Target::Overlay, repairs, is_drift);
    }

    fn overlay_compared(&self) {
        self.queue.soon(Target::HostAddresses);
    }

    fn retry_overlay(&self) {
        self.queue.later(Target::Overlay, 0);
    }
}
