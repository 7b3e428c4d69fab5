//! Garbage collection: endpoints whose sandbox went away without a detach.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    clock::{now_boot, now_unix},
    core::Node,
    error::Result,
    pod_netns::path_is_stale,
};
use netd_domain::{Endpoint, EndpointKey, Phase};
use netd_store::{Change, Store as _, Txn, keys};

/// Since when each endpoint's namespace has been seen to be gone.
type Missing = HashMap<EndpointKey, Instant>;

/// A runtime removes a sandbox's namespace right after the detach of its primary
/// endpoint. The sandbox's other endpoints are checked this often after that.
const ORPHAN_INTERVAL: Duration = Duration::from_millis(500);
/// How many times they are checked before the usual interval applies again.
const MAX_ORPHAN_CHECKS: u32 = 20;

impl Node {
    /// Looks for garbage at the configured interval until netd ends.
    pub(super) async fn gc_forever(self: Arc<Self>) {
        let mut missing = Missing::new();
        let mut checks = 0u32;
        loop {
            let orphans = self.gc_once(&mut missing, Instant::now()).await;
            if let Err(error) = self.remove_old_tombstones().await {
                tracing::warn!(%error, "old tombstones could not be removed: {error}");
            }
            checks = if orphans { checks } else { 0 };
            let wait = match checks {
                0 => self.config.gc.interval,
                _ => self.config.gc.interval.min(ORPHAN_INTERVAL),
            };
            checks = checks.saturating_sub(1);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.orphans.notified() => {
                    checks = MAX_ORPHAN_CHECKS;
                    tokio::time::sleep(self.config.gc.interval.min(ORPHAN_INTERVAL)).await;
                }
            }
        }
    }

    /// An endpoint is garbage when its namespace is gone (its path, and its host link), no
    /// runtime lists its sandbox, and the grace period has passed since. It is garbage as soon
    /// as the namespace is gone if its sandbox's primary endpoint was detached, or, where no
    /// runtime lists its sandbox, if the Kubernetes API no longer knows its pod. Returns whether
    /// there are endpoints that only wait for that.
    async fn gc_once(self: &Arc<Self>, missing: &mut Missing, now: Instant) -> bool {
        let mut still = Missing::new();
        let mut orphans = false;
        // Asked for when the first endpoint needs it, and then for all of them.
        let mut living = None;
        for (endpoint, _) in self.state.endpoints() {
            let key = &endpoint.key;
            if endpoint.phase != Phase::Attached {
                continue;
            }
            let orphan = self.state.primary_is_gone(&key.sandbox);
            orphans |= orphan;
            let wanted = !orphan && self.state.is_known(&key.sandbox);
            if wanted || !path_is_stale(&endpoint) {
                continue;
            }
            // Nothing but the grace guards an endpoint whose namespace is not known.
            let gone = endpoint.netns_path.is_some() && self.state.pod_is_gone(&endpoint.pod);
            orphans |= gone;
            // The pod may live though no path leads to it. One that can't be asked about is
            // not known to be gone.
            if endpoint.netns_path.is_some() {
                if living.is_none() {
                    living = Some(self.living_links().await);
                }
                let own = &endpoint.wiring.host_ifname;
                if !matches!(&living, Some(Ok(links)) if !links.contains(own)) {
                    continue;
                }
            }
            let since = missing.get(key).copied().unwrap_or(now);
            if !orphan && !gone && now.duration_since(since) < self.config.gc.grace {
                still.insert(key.clone(), since);
                continue;
            }
            if let Err(error) = self.remove_garbage(&endpoint).await {
                tracing::warn!(endpoint = %key, %error, "garbage collection of {key} failed: {error}; trying again");
                still.insert(key.clone(), since);
            }
        }
        *missing = still;
        for ip in self.state.old_reservations(None, self.config.gc.grace) {
            tracing::warn!(%ip, "releasing {ip}: it was reserved and never used");
            if let Err(error) = self.release(ip).await {
                tracing::warn!(%ip, %error, "{ip} could not be released: {error}; trying again");
            }
        }
        orphans
    }

    /// Detaches `endpoint`, unless another endpoint has its key by now.
    async fn remove_garbage(&self, endpoint: &Endpoint) -> Result<()> {
        let key = &endpoint.key;
        let _lock = self.locks.lock(key).await;
        let Some((now, _)) = self.state.endpoint(key) else { return Ok(()) };
        if now.phase != Phase::Attached || now.sequence != endpoint.sequence {
            return Ok(());
        }
        tracing::warn!(endpoint = %key, netns = %endpoint.netns_display(),
            "removing {key}: its network namespace is gone and nobody detached it");
        self.begin_detach(&now, now_boot()).await?;
        self.metrics.collected(1);
        Ok(())
    }

    async fn remove_old_tombstones(&self) -> Result<()> {
        const CHUNK: usize = 256;
        let ttl = i64::try_from(self.config.tombstone_ttl.as_secs()).unwrap_or(i64::MAX);
        loop {
            // Listed again each time: a newer tombstone may have replaced one.
            let _ending = self.removals.lock().await;
            let mut old = self.state.old_tombstones(now_unix().saturating_sub(ttl));
            old.truncate(CHUNK);
            if old.is_empty() {
                return Ok(());
            }
            let delete = |key: &EndpointKey| Change::Delete { key: keys::tombstone(key) };
            let changes = old.iter().map(delete).collect();
            self.store.commit(Txn { compares: vec![], changes }).await?;
            for key in &old {
                self.state.remove_tombstone(key);
            }
        }
    }
}
