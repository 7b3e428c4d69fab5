//! The host's side follows the MAC that another program, such as CNI's `tuning`, has given the
//! sandbox's side.

use std::sync::Arc;

use super::{core::Node, error::Result};
use netd_dataplane::Netns;
use netd_domain::{Endpoint, Mac, RepairScope};

impl Node {
    /// Lets the pod send with the MAC that its side has now, unless another endpoint or a
    /// bridge of this node has it. The caller holds the key's lock.
    pub(super) async fn follow_mac(
        &self,
        endpoint: &Arc<Endpoint>,
        netns: &Arc<Netns>,
    ) -> Result<Arc<Endpoint>> {
        if self.repair_scope(&endpoint.network) == RepairScope::Pod {
            return Ok(endpoint.clone());
        }
        let old = endpoint.wiring.clone();
        let seen = self.dataplane.pod_mac(netns.clone(), old.clone()).await?;
        let mut wanted = seen.filter(|mac| *mac != old.mac);
        if let Some(mac) = wanted.filter(|mac| self.is_taken(endpoint, *mac)) {
            tracing::warn!(endpoint = %endpoint.key, %mac,
                "{} has the MAC {mac} now, which is another one's on this node: it can't send with it",
                endpoint.key);
            wanted = None;
        }
        if wanted == old.pod_mac {
            return Ok(endpoint.clone());
        }
        let mut next = Endpoint::clone(endpoint);
        Arc::make_mut(&mut next.wiring).pod_mac = wanted;
        let next = self.record_change(next).await?;
        self.dataplane.change_rules(old, next.wiring.clone()).await?;
        match wanted {
            Some(mac) => tracing::info!(endpoint = %next.key, %mac,
                "{} has the MAC {mac} now: it may send with it", next.key),
            None => tracing::info!(endpoint = %next.key,
                "{} has no other MAC than its own any more", next.key),
        }
        Ok(next)
    }

    /// Whether something else on this node that netd knows has the MAC.
    fn is_taken(&self, endpoint: &Endpoint, mac: Mac) -> bool {
        let bridges = self.state.networks();
        let mut bridges = bridges.iter().map(|state| self.bridge_mac(&state.network.bridge));
        let others = self.state.endpoints();
        let mut others = others.iter().map(|(other, _)| other).filter(|e| e.key != endpoint.key);
        bridges.any(|own| own == mac)
            || endpoint.wiring.host_mac == mac
            || others.any(|e| e.wiring.macs().any(|own| own == mac) || e.wiring.host_mac == mac)
    }
}
