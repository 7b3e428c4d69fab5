//! Detach: record it, detach the link so that no packet reaches the pod, answer. After
//! the answer the link is deleted, and only then are its addresses free.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    core::Node,
    error::Result,
    record::encode,
    run_to_end::run_to_end,
    state::{KernelStatus, is_primary},
};
use crate::metrics::{Step, Verb};
use netd_domain::{Endpoint, EndpointKey, IfName, Phase, SandboxId, Tombstone};
use netd_store::Store as _;

/// How many endpoints are released in one transaction.
const MAX_RELEASES_PER_TXN: usize = 128;
/// After a look for an address' connections that took longer than this, netd pauses for so
/// many times as long: looks take a sixth of a processor at most.
const LONG_LOOK: Duration = Duration::from_millis(25);
const SHARE_OF_LOOKS: u32 = 5;
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Between two tries to delete links.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

impl Node {
    /// Removes one endpoint of a sandbox, or all of them; returns how many there were.
    /// Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// The store or the kernel; what is recorded is completed later.
    pub async fn detach(
        self: &Arc<Self>,
        sandbox: SandboxId,
        ifname: Option<IfName>,
        issued_at: u64,
    ) -> Result<u32> {
        self.detach_from(sandbox, ifname, issued_at, None).await
    }

    /// As [`Node::detach`], but only of endpoints that `source` attached (see
    /// [`Endpoint::is_of_source`]). Where there is none, nothing is recorded: no later attach
    /// is refused.
    ///
    /// # Errors
    /// As [`Node::detach`].
    pub async fn detach_of_source(
        self: &Arc<Self>,
        sandbox: SandboxId,
        ifname: Option<IfName>,
        issued_at: u64,
        source: String,
    ) -> Result<u32> {
        self.detach_from(sandbox, ifname, issued_at, Some(source)).await
    }

    async fn detach_from(
        self: &Arc<Self>,
        sandbox: SandboxId,
        ifname: Option<IfName>,
        issued_at: u64,
        source: Option<String>,
    ) -> Result<u32> {
        let node = self.clone();
        let detach = async move {
            let keys = match ifname.clone() {
                Some(ifname) => vec![EndpointKey { sandbox: sandbox.clone(), ifname }],
                None => {
                    if source.is_none() {
                        // First the tombstone: an attach either sees it or is in the list.
                        let every = EndpointKey::every(sandbox.clone());
                        let _removals = node.removals.lock().await;
                        node.record_tombstone(&every, issued_at).await?;
                    }
                    let all = node.state.of_sandbox(&sandbox);
                    all.iter().map(|e| e.key.clone()).collect()
                }
            };
            let (mut removed, mut failed) = (0, None);
            if keys.iter().all(|key| node.state.endpoint(key).is_none()) && source.is_none() {
                node.detach_foreign(&sandbox, ifname.as_ref()).await?;
            }
            for key in keys {
                match node.detach_one(&key, issued_at, source.as_deref()).await {
                    Ok(there) => removed += u32::from(there),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(removed), Err)
        };
        run_to_end("detach", detach).await
    }

    async fn detach_one(
        &self,
        key: &EndpointKey,
        issued_at: u64,
        source: Option<&str>,
    ) -> Result<bool> {
        let start = Instant::now();
        let _lock = self.locks.lock(key).await;
        let found = self.state.endpoint(key);
        if let Some(source) = source
            && found.as_ref().is_none_or(|(endpoint, _)| !endpoint.is_of_source(source))
        {
            return Ok(false);
        }
        let Some((endpoint, _)) = found else {
            let _ending = self.removals.lock().await;
            self.record_tombstone(key, issued_at).await?;
            return Ok(false);
        };
        if endpoint.phase == Phase::Detaching {
            self.detach_again(key, issued_at).await?;
            return Ok(false);
        }
        if issued_at < endpoint.issued_at {
            tracing::info!(sandbox = %key.sandbox, endpoint = %key,
                "left {key} attached: the detach was issued before the attach");
            return Ok(false);
        }
        self.begin_detach(&endpoint, issued_at).await?;
        self.metrics.step(Verb::Detach, Step::Total, start.elapsed());
        tracing::info!(sandbox = %key.sandbox, endpoint = %key,
            micros = start.elapsed().as_micros() as u64, "detached {key}");
        Ok(true)
    }

    /// There is no endpoint: records only that attaches issued before now are refused. The
    /// caller holds `removals`.
    async fn record_tombstone(&self, key: &EndpointKey, issued_at: u64) -> Result<()> {
        let old = self.state.tombstone(key);
        if old.as_ref().is_some_and(|t| t.issued_at >= issued_at) {
            return Ok(());
        }
        let mut tombstone = self.state.empty_tombstone(key, issued_at);
        if let Some(old) = old {
            // Its addresses are still the last to be used again.
            tombstone.addresses = old.addresses;
            tombstone.network = old.network;
            tombstone.sequence = old.sequence;
        }
        self.store.commit(encode::tombstone(&tombstone)?).await?;
        self.state.add_tombstone(tombstone);
        Ok(())
    }

    /// The endpoint is being removed already: attaches issued before this detach are refused
    /// too, and a link that could not be detached is tried again. The caller holds the
    /// key's lock, so no new link can have its name; the task that deletes links may be done
    /// with it at any moment.
    async fn detach_again(&self, key: &EndpointKey, issued_at: u64) -> Result<()> {
        let ending = self.removals.lock().await;
        let Some((endpoint, status)) = self.state.endpoint(key) else {
            return self.record_tombstone(key, issued_at).await;
        };
        if issued_at > endpoint.issued_at {
            let mut later = Endpoint::clone(&endpoint);
            later.issued_at = issued_at;
            self.record_change(later).await?;
        }
        drop(ending);
        if status == KernelStatus::DetachFailed {
            let parked = self.detach_link(&endpoint, false).await;
            self.links_to_delete.notify_one();
            return parked;
        }
        Ok(())
    }

    /// Records that the endpoint is being removed, and detaches its link. The caller holds
    /// the key's lock. The addresses stay in use until the link is deleted.
    pub(super) async fn begin_detach(&self, endpoint: &Endpoint, issued_at: u64) -> Result<()> {
        let mut ending = endpoint.clone();
        ending.phase = Phase::Detaching;
        ending.issued_at = issued_at;
        let ours =
            self.state.endpoint(&ending.key).is_some_and(|(_, w)| w == KernelStatus::Attached);
        self.store.commit(encode::update(&ending)?).await?;
        self.health.forget(&format!("endpoint/{}", ending.key));
        let ending = Arc::new(ending);
        self.state.update(ending.clone(), KernelStatus::DetachingLink);
        self.release_siblings(&ending);
        let parked = self.detach_link(&ending, ours).await;
        self.links_to_delete.notify_one();
        parked
    }

    /// A sandbox ends with its primary endpoint, or with its last one: that a runtime listed
    /// it before no longer keeps its other endpoints from garbage collection.
    fn release_siblings(&self, ending: &Endpoint) {
        let sandbox = &ending.key.sandbox;
        let rest = self.state.of_sandbox(sandbox);
        let left = rest.iter().any(|e| e.phase == Phase::Attached);
        if is_primary(ending) || !left {
            self.state.forget_sandbox(sandbox);
        }
        if left {
            self.orphans.notify_one();
        }
    }

    /// `ours`: the link is known to be this endpoint's. Otherwise this is checked first: a
    /// device of another program may be why the endpoint could not be made.
    async fn detach_link(&self, endpoint: &Endpoint, ours: bool) -> Result<()> {
        let wiring = endpoint.wiring.clone();
        let parked = match ours {
            true => self.dataplane.detach_link(wiring).await,
            false => self.dataplane.detach_own_link(wiring).await,
        };
        let status =
            if parked.is_ok() { KernelStatus::LinkDetached } else { KernelStatus::DetachFailed };
        self.state.set_status(&endpoint.key, status);
        parked.map_err(Into::into)
    }

    /// Deletes detached links and frees their addresses, until netd ends.
    pub(super) async fn delete_links_forever(self: Arc<Self>) {
        loop {
            self.links_to_delete.notified().await;
            while let Err(error) = self.delete_links_once().await {
                // New pods can be attached nevertheless.
                self.health.advise("reaper", format!("links can't be removed: {error}"));
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            self.health.good("reaper");
        }
    }

    async fn delete_links_once(&self) -> Result<()> {
        let mut failed = None;
        let mut parked = Vec::new();
        for (endpoint, status) in self.state.detaching() {
            match status {
                KernelStatus::LinkDetached => parked.push(endpoint),
                KernelStatus::DetachFailed => match self.detach_link(&endpoint, false).await {
                    Ok(()) => parked.push(endpoint),
                    Err(error) => failed = Some(error),
                },
                // Its detach is working on it, and notifies this task when done.
                _ => {}
            }
        }
        self.metrics.set_reaper_queue(parked.len());
        if !parked.is_empty() {
            let start = Instant::now();
            self.dataplane.delete_detached().await?;
            self.metrics.step(Verb::Detach, Step::Kernel, start.elapsed());
            // Before another endpoint can get the addresses: it would inherit the connections.
            let flows = Instant::now();
            let addresses = parked.iter().flat_map(|endpoint| endpoint.ips()).collect();
            self.dataplane.end_flows(addresses).await?;
            let took = flows.elapsed();
            for chunk in parked.chunks(MAX_RELEASES_PER_TXN) {
                self.release_addresses(chunk).await?;
            }
            self.released.notify_waiters();
            if took > LONG_LOOK {
                // A table of many connections: the next detaches are looked at together.
                tokio::time::sleep((took * SHARE_OF_LOOKS).min(MAX_PAUSE)).await;
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn release_addresses(&self, gone: &[Arc<Endpoint>]) -> Result<()> {
        let _ending = self.removals.lock().await;
        // Read again: a second detach may have been recorded meanwhile.
        let now = gone.iter().filter_map(|e| Some(self.state.endpoint(&e.key)?.0));
        let now = now.filter(|e| e.phase == Phase::Detaching);
        let ended: Vec<(Arc<Endpoint>, Tombstone)> =
            now.map(|e| (e.clone(), self.state.make_tombstone(&e))).collect();
        self.store.commit(encode::release(&ended)?).await?;
        for (endpoint, tombstone) in ended {
            self.state.released(&endpoint, tombstone);
        }
        Ok(())
    }
}
