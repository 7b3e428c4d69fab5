//! flannel's VTEP becomes this node's: the other nodes' entries for it stay right.

use std::io;

use super::{core::Overlay, local::LocalError, local_node::LocalNode};
use netd_cluster::{Family, Identity, LeaseAttrs, Local, desired::Desired, identity};
use netd_domain::overlay::DeviceKind;

impl Overlay {
    /// Gives this node the MACs by which the others know its flannel, as long as it has
    /// announced none of its own. Returns the node's new identity; `None`: it stays.
    ///
    /// # Errors
    /// The kernel or the leases can't be read yet, or the disk can't be written.
    pub(super) async fn take_over_vteps(
        &self,
        node: &dyn LocalNode,
        desired: &Desired,
    ) -> Result<Option<Identity>, LocalError> {
        let local = desired.local();
        let mut next = local.identity.clone();
        for device in &desired.local_plan().devices {
            let DeviceKind::Vxlan(vxlan) = &device.kind else { continue };
            let own = vxlan.mac == local.identity.vtep_v4;
            let family = if own { Family::V4 } else { Family::V6 };
            if self.membership.announces_vtep(family) {
                continue;
            }
            let claims = self.membership.vteps(addresses(local), family).await;
            let claims = claims.ok_or(LocalError::NotListed)?;
            let link = node.dataplane().foreign_vtep(device.name.clone(), vxlan.vni).await?;
            let Some(mac) = claims.choose(link).filter(|mac| *mac != vxlan.mac) else { continue };
            tracing::info!(device = %device.name, %mac,
                "{} takes over the MAC {mac} of flannel, which other nodes send to", device.name);
            match family {
                Family::V4 => next.vtep_v4 = mac,
                Family::V6 => next.vtep_v6 = mac,
            }
        }
        if next == local.identity {
            return Ok(None);
        }
        self.save_identity(node, next.clone()).await?;
        Ok(Some(next))
    }

    /// On disk before it is used: the MAC has to be the same after a restart.
    async fn save_identity(&self, node: &dyn LocalNode, next: Identity) -> io::Result<()> {
        let state_dir = node.config().state_dir.clone();
        let saved = next.clone();
        tokio::task::spawn_blocking(move || identity::save(&state_dir, &saved)).await??;
        *self.identity.lock() = next;
        Ok(())
    }
}

fn addresses(local: &Local) -> LeaseAttrs {
    LeaseAttrs { public_v4: local.public_v4, public_v6: local.public_v6, ..LeaseAttrs::default() }
}
