//! Networks and endpoints follow the MTU of the underlay, or of the overlay.

use std::sync::Arc;

use super::{core::Node, error::Result, queue::Target, record::encode, state::KernelStatus};
use netd_domain::{Endpoint, EndpointKey, Phase};
use netd_store::Store as _;

impl Node {
    /// Networks and endpoints without an MTU of their own follow the underlay's, or the
    /// overlay's; an endpoint whose sandbox's side others have taken over keeps the MTU that it
    /// has. Looks at all of them, so that one that failed is done when this is called again.
    pub(super) async fn follow_underlay(&self) -> Result<()> {
        let underlay = self.dataplane.underlay_mtu().await?;
        let mut failed = None;
        let mut follow = std::collections::HashMap::new();
        {
            let _topology = self.network_changes.lock().await;
            for state in self.state.networks() {
                if state.network.mtu.is_some() {
                    continue;
                }
                let name = state.network.name.clone();
                let mtu = state.network.effective_mtu(underlay);
                if state.wiring.mtu != mtu {
                    tracing::info!(network = %name, from = state.wiring.mtu, to = mtu,
                        "network {name}: MTU changed from {} to {mtu}", state.wiring.mtu);
                    let wiring = Arc::new(self.wiring_of(&state.network, mtu));
                    self.state.put_network(state.network.clone(), wiring);
                    self.changed.lock().insert(name.clone());
                    self.queue.soon(Target::Network(name.clone()));
                }
                follow.insert(name, mtu);
            }
        }
        for (endpoint, _) in self.state.endpoints() {
            if let Some(mtu) = follow.get(&endpoint.network).filter(|_| !endpoint.fixed_mtu) {
                failed = self.change_mtu(&endpoint.key, *mtu).await.err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn change_mtu(&self, key: &EndpointKey, mtu: u32) -> Result<()> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, status)) = self.state.endpoint(key) else { return Ok(()) };
        if endpoint.phase != Phase::Attached || endpoint.wiring.mtu == mtu {
            return Ok(());
        }
        let mut changed = Endpoint::clone(&endpoint);
        Arc::make_mut(&mut changed.wiring).mtu = mtu;
        self.store.commit(encode::update(&changed)?).await?;
        // The kernel now differs from the record, and that is not drift.
        let status =
            if status == KernelStatus::Attached { KernelStatus::Attaching } else { status };
        self.state.update(Arc::new(changed), status);
        self.queue.soon(Target::Endpoint(key.clone()));
        Ok(())
    }
}
