//! Detach: record, take out of packets' reach, answer; then, behind the caller's
//! back, out of the kernel, and only then give the addresses back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Node,
    error::{Error, Result},
    records,
    registry::Work,
};
use crate::{
    domain::{Endpoint, EndpointKey, IfName, Phase, SandboxId, Tombstone},
    metrics::{Step, Verb},
};

/// How many endpoints are given back in one transaction.
const CHUNK: usize = 128;
/// Between two tries to take links out of the kernel.
const RETRY: Duration = Duration::from_millis(200);

impl Node {
    /// Removes one endpoint of a sandbox, or all of them; how many there were.
    /// Goes on to its end even if the caller goes away.
    ///
    /// # Errors
    /// The store or the kernel; what is recorded is completed later.
    pub async fn detach(
        self: &Arc<Self>,
        sandbox: SandboxId,
        ifname: Option<IfName>,
        issued_at: u64,
    ) -> Result<u32> {
        let node = self.clone();
        let work = tokio::spawn(async move {
            let keys = match ifname {
                Some(ifname) => vec![EndpointKey { sandbox, ifname }],
                None => {
                    // First the fence: an attach either sees it or is in the list.
                    let every = EndpointKey::every(sandbox.clone());
                    node.refuse_late_attaches(&every, issued_at).await?;
                    let all = node.registry.of_sandbox(&sandbox);
                    all.iter().map(|e| e.key.clone()).collect()
                }
            };
            let (mut removed, mut failed) = (0, None);
            for key in keys {
                match node.detach_one(&key, issued_at).await {
                    Ok(there) => removed += u32::from(there),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            failed.map_or(Ok(removed), Err)
        });
        work.await.map_err(|e| Error::Internal(format!("detach: {e}")))?
    }

    async fn detach_one(&self, key: &EndpointKey, issued_at: u64) -> Result<bool> {
        let start = Instant::now();
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, work)) = self.registry.endpoint(key) else {
            self.refuse_late_attaches(key, issued_at).await?;
            return Ok(false);
        };
        if endpoint.phase == Phase::Detaching && work != Work::ParkFailed {
            return Ok(false);
        }
        self.begin_detach(&endpoint, issued_at).await?;
        self.metrics.step(Verb::Detach, Step::Total, start.elapsed());
        tracing::info!(sandbox = %key.sandbox, endpoint = %key,
            micros = start.elapsed().as_micros() as u64, "detached");
        Ok(true)
    }

    /// Nothing is there: remember only that it is not wanted.
    async fn refuse_late_attaches(&self, key: &EndpointKey, issued_at: u64) -> Result<()> {
        if self.registry.tombstone(key).is_some_and(|t| t.issued_at >= issued_at) {
            return Ok(());
        }
        let mut tombstone = self.registry.empty_tombstone(key, issued_at);
        if let Some(old) = self.registry.tombstone(key) {
            // Still the last to be used again.
            tombstone.addresses = old.addresses;
            tombstone.network = old.network;
            tombstone.sequence = old.sequence;
        }
        self.store.commit(records::tombstone(&tombstone)?).await?;
        self.registry.bury(tombstone);
        Ok(())
    }

    /// Records that the endpoint is to go, and parks its link. The caller holds the
    /// key's lock. Addresses stay held until the link is out of the kernel.
    pub(super) async fn begin_detach(&self, endpoint: &Endpoint, issued_at: u64) -> Result<()> {
        let mut ending = endpoint.clone();
        ending.phase = Phase::Detaching;
        ending.issued_at = issued_at;
        self.health.forget(&format!("endpoint/{}", ending.key));
        self.store.commit(records::update(&ending)?).await?;
        let ending = Arc::new(ending);
        self.registry.update(ending.clone(), Work::Parking);
        let parked = self.park(&ending).await;
        self.reap.notify_one();
        parked
    }

    async fn park(&self, endpoint: &Endpoint) -> Result<()> {
        match self.dataplane.park(Arc::new(endpoint.wiring.clone())).await {
            Ok(()) => {
                self.registry.set_work(&endpoint.key, Work::Parked);
                Ok(())
            }
            Err(error) => {
                self.registry.set_work(&endpoint.key, Work::ParkFailed);
                Err(error.into())
            }
        }
    }

    /// Takes parked links out of the kernel and gives addresses back, for ever.
    pub(super) async fn reap_forever(self: Arc<Self>) {
        loop {
            self.reap.notified().await;
            while let Err(error) = self.reap_once().await {
                self.health.bad("reaper", format!("links can't be removed: {error}"));
                tokio::time::sleep(RETRY).await;
            }
            self.health.good("reaper");
        }
    }

    async fn reap_once(&self) -> Result<()> {
        let mut failed = None;
        let mut parked = Vec::new();
        for (endpoint, work) in self.registry.detaching() {
            match work {
                Work::Parked => parked.push(endpoint),
                Work::ParkFailed => match self.park(&endpoint).await {
                    Ok(()) => parked.push(endpoint),
                    Err(error) => failed = Some(error),
                },
                // Its detach is at it, and rings again when done.
                _ => {}
            }
        }
        self.metrics.set_reaper_queue(parked.len());
        if !parked.is_empty() {
            let start = Instant::now();
            self.dataplane.reap().await?;
            self.metrics.step(Verb::Detach, Step::Kernel, start.elapsed());
            for chunk in parked.chunks(CHUNK) {
                self.give_back(chunk).await?;
            }
            self.released.notify_waiters();
        }
        failed.map_or(Ok(()), Err)
    }

    async fn give_back(&self, gone: &[Arc<Endpoint>]) -> Result<()> {
        let ended: Vec<(Arc<Endpoint>, Tombstone)> =
            gone.iter().map(|e| (e.clone(), self.registry.make_tombstone(e))).collect();
        self.store.commit(records::release(&ended)?).await?;
        for (endpoint, tombstone) in ended {
            self.registry.released(&endpoint, tombstone);
        }
        Ok(())
    }
}
