//! Takes another node that is gone out of the cluster.

use super::core::Overlay;
use crate::node::error::Result;
use netd_cluster::{
    Subnets,
    membership::removal::{self, Removal, Removed},
};

impl Overlay {
    /// Removes the leases of a node; see [`removal::remove`].
    ///
    /// # Errors
    /// Why it was not removed.
    pub(crate) async fn remove_node(&self, target: String, force: bool) -> Result<Removed> {
        let etcd = self.etcd()?;
        let own_id = self.membership.status().node_id;
        let removal = Removal { target, force, own_id };
        let removed = removal::remove(&*etcd.store, etcd.keys.clone(), &removal).await?;
        let subnets = crate::node::listed::listed(removed.subnets.iter().flat_map(Subnets::iter));
        tracing::info!(
            node = removal.target,
            force,
            subnets,
            "removed the node {} from the cluster: its subnets ({subnets}) are free",
            removal.target
        );
        Ok(removed)
    }
}
