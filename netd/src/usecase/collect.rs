//! Garbage: endpoints whose sandbox went away without a detach.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Node, error::Result, now_boot, now_unix, reconcile::own_netns};
use crate::{
    domain::{EndpointKey, Phase},
    store::{Change, Txn, keys},
};

/// Since when each endpoint's namespace has been seen to be gone.
type Missing = HashMap<EndpointKey, Instant>;

impl Node {
    /// Looks for garbage at the configured interval, for ever.
    pub(super) async fn collect_forever(self: Arc<Self>) {
        let mut missing = Missing::new();
        loop {
            self.collect_once(&mut missing, Instant::now()).await;
            if let Err(error) = self.forget_tombstones().await {
                tracing::warn!(%error, "old tombstones could not be removed");
            }
            tokio::time::sleep(self.config.gc.interval).await;
        }
    }

    /// An endpoint is garbage when its namespace is gone, no live sandbox has it, and
    /// the grace period has passed since both became so.
    async fn collect_once(self: &Arc<Self>, missing: &mut Missing, now: Instant) {
        let mut still = Missing::new();
        for (endpoint, _) in self.registry.endpoints() {
            let key = &endpoint.key;
            if endpoint.phase != Phase::Attached
                || self.registry.is_known(&key.sandbox)
                || own_netns(&endpoint).is_some()
            {
                continue;
            }
            let since = missing.get(key).copied().unwrap_or(now);
            if now.duration_since(since) < self.config.gc.grace {
                still.insert(key.clone(), since);
                continue;
            }
            tracing::warn!(endpoint = %key, netns = %endpoint.netns_path.display(),
                "its namespace is gone and nobody detached it: collecting it");
            match self.detach(key.sandbox.clone(), Some(key.ifname.clone()), now_boot()).await {
                Ok(_) => self.metrics.collected(1),
                Err(error) => {
                    tracing::warn!(endpoint = %key, %error, "could not be collected");
                    still.insert(key.clone(), since);
                }
            }
        }
        *missing = still;
    }

    async fn forget_tombstones(&self) -> Result<()> {
        const CHUNK: usize = 256;
        let ttl = i64::try_from(self.config.tombstone_ttl.as_secs()).unwrap_or(i64::MAX);
        let old = self.registry.old_tombstones(now_unix().saturating_sub(ttl));
        for chunk in old.chunks(CHUNK) {
            let delete = |key: &EndpointKey| Change::Delete { key: keys::tombstone(key) };
            let changes = chunk.iter().map(delete).collect();
            self.store.commit(Txn { compares: vec![], changes }).await?;
            for key in chunk {
                self.registry.exhume(key);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}
