//! What the overlay asks of the node that it runs on.

use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::sync::Notify;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::node::{error::Result, health::Health, state::NetworkState};
use netd_dataplane::{Dataplane, Repair};
use netd_domain::{Endpoint, NetworkName, NetworkWiring, ipam::PoolUsage, network::Leased};
use netd_store::Store;

/// The node under the overlay: its settings, its networks' pools, and what it reports to.
#[async_trait]
pub trait LocalNode: std::fmt::Debug + Send + Sync {
    /// The node's configuration.
    fn config(&self) -> &Config;
    /// Where the overlay says which of its parts work.
    fn health(&self) -> &Health;
    /// Where the overlay counts.
    fn metrics(&self) -> &Metrics;
    /// The kernel's side.
    fn dataplane(&self) -> &Dataplane;
    /// The node's own store, not the cluster's.
    fn store(&self) -> Arc<dyn Store>;

    /// Every endpoint, attached or being removed.
    fn endpoints(&self) -> Vec<Arc<Endpoint>>;
    /// One network.
    fn network(&self, name: &NetworkName) -> Option<NetworkState>;
    /// How full each pool of a network is.
    fn pool_usage(&self, name: &NetworkName) -> Vec<PoolUsage>;
    /// Whether no endpoint of the network has an address in `subnet`.
    fn is_unused(&self, name: &NetworkName, subnet: IpNet) -> bool;

    /// Makes `subnets` the pools of a network whose pools are leased.
    async fn set_pools(&self, name: &NetworkName, subnets: &[IpNet], leased: Leased) -> Result<()>;
    /// Removes pools if none of their addresses is in use; whether it removed them.
    async fn remove_pools(&self, name: &NetworkName, subnets: &[IpNet]) -> Result<bool>;
    /// Notified after a network got other pools.
    fn pools_changed(&self) -> &Notify;
    /// An address of docker0 that lies in one of `subnets`, which belong, or are to
    /// belong, to the network with this wiring.
    async fn docker0_in(
        &self,
        wiring: &NetworkWiring,
        subnets: Vec<IpNet>,
    ) -> Result<Option<IpNet>>;

    /// Logs repairs of the overlay, and counts them as drift if they are.
    fn count_repairs(&self, repairs: &[Repair], is_drift: bool);
    /// Told after the overlay's devices were made or compared: the events thread does not hear
    /// of the addresses that they got.
    fn overlay_compared(&self);
    /// Has the overlay compared with the kernel again, after a delay.
    fn retry_overlay(&self);
}
