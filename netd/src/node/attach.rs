//! Attach: choose, record, make.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument as _;

use super::{
    core::Node,
    error::{Error, Result},
    queue::Target,
    reconcile::netns_is_gone,
    record::encode,
    state::{KernelStatus, Placement},
};
use crate::metrics::{Step, Verb};
use netd_dataplane::Netns;
use netd_domain::ipam::IpamError;
use netd_domain::{AttachSpec, Endpoint, EndpointKey, Phase};
use netd_store::{Store as _, TxnOutcome, keys};

/// How often other addresses are tried when the store says that one is held.
const TRIES: usize = 16;

impl Node {
    /// Makes an endpoint, or answers the one that is there. Goes on to its end even
    /// if the caller goes away.
    ///
    /// # Errors
    /// Nothing of the endpoint is left then, but for one whose kernel work was refused:
    /// its addresses are given back as soon as its link is gone.
    pub async fn attach(self: &Arc<Self>, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        let node = self.clone();
        let work = async move { node.attach_to_the_end(spec).await };
        let work = tokio::spawn(work.in_current_span());
        work.await.map_err(|e| Error::Internal(format!("attach: {e}")))?
    }

    async fn attach_to_the_end(self: &Arc<Self>, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        let start = Instant::now();
        let _lock = self.locks.lock(&spec.key).await;
        let netns = Arc::new(Netns::open(&spec.netns_path)?);
        self.metrics.step(Verb::Attach, Step::Validate, start.elapsed());
        let validated = Instant::now();
        if let Some(endpoint) = self.attached_before(&spec, &netns).await? {
            return Ok(endpoint);
        }
        if self.state.is_fenced(&spec.key, spec.issued_at) {
            return Err(Error::Detached(spec.key));
        }
        let endpoint = self.claim(&spec, Placement::In(netns.id())).await?;
        self.metrics.step(Verb::Attach, Step::IpamStore, validated.elapsed());
        self.make(netns, &endpoint).await?;
        self.metrics.step(Verb::Attach, Step::Total, start.elapsed());
        say_attached(endpoint.clone(), start.elapsed());
        Ok(endpoint)
    }

    /// The endpoint of this key, if the request means the one that is there.
    async fn attached_before(
        self: &Arc<Self>,
        spec: &AttachSpec,
        netns: &Arc<Netns>,
    ) -> Result<Option<Arc<Endpoint>>> {
        let Some((endpoint, _)) = self.state.endpoint(&spec.key) else { return Ok(None) };
        if endpoint.phase == Phase::Attached && endpoint.netns == netns.id() {
            // It may have been cut off midway by a crash, have failed since, or have been
            // made in another namespace whose inode this one has now: nobody waits long
            // for a repeated attach, so look.
            self.repair_locked(&endpoint, netns.clone()).await?;
            return Ok(Some(endpoint));
        }
        if endpoint.phase == Phase::Attached {
            if !netns_is_gone(&endpoint) {
                return Err(Error::Elsewhere {
                    key: spec.key.clone(),
                    path: endpoint.netns_path.display().to_string(),
                    have: endpoint.netns,
                    asked: netns.id(),
                });
            }
            tracing::warn!(endpoint = %spec.key, netns = %endpoint.netns_path.display(),
                "its namespace is gone and it is attached in another one: detaching the old");
            self.begin_detach(&endpoint, endpoint.issued_at).await?;
        }
        self.wait_released(&spec.key).await?;
        Ok(None)
    }

    /// Chooses addresses and records the intent; the store decides who holds them.
    pub(super) async fn claim(&self, spec: &AttachSpec, site: Placement) -> Result<Arc<Endpoint>> {
        self.refuse_docker0s(&spec.network)?;
        for _ in 0..TRIES {
            let endpoint = self.reserve(spec, site).await?;
            let mut reservation = Reservation { node: self, endpoint: Some(endpoint.clone()) };
            // Once more: a detach of the whole sandbox looks for reservations.
            if self.state.is_fenced(&spec.key, spec.issued_at) {
                return Err(Error::Detached(spec.key.clone()));
            }
            match self.store.commit(encode::attach(&endpoint)?).await? {
                TxnOutcome::Committed(_) => {
                    reservation.endpoint = None;
                    self.state.set_status(&spec.key, KernelStatus::Attaching);
                    self.state.remove_tombstone(&spec.key);
                    return Ok(endpoint);
                }
                TxnOutcome::Conflict(held) => {
                    let taken = |ip: &std::net::IpAddr| {
                        let key = keys::address(&endpoint.network, *ip);
                        held.iter().any(|entry| entry.key == key)
                    };
                    let taken: Vec<_> = endpoint.ips().filter(taken).collect();
                    tracing::warn!(endpoint = %endpoint.key, addresses = ?taken,
                        "the store says these addresses are held; taking others");
                    reservation.endpoint = None;
                    self.state.drop_reservation(&endpoint, &taken);
                }
            }
        }
        let text = format!("{TRIES} addresses in a row are held by others in the store");
        Err(Error::Internal(text))
    }

    /// Chooses addresses; where the node's subnets are full and the cluster has others,
    /// from another one.
    async fn reserve(&self, spec: &AttachSpec, site: Placement) -> Result<Arc<Endpoint>> {
        let reserved = self.state.reserve(spec, site);
        let Some(overlay) = self.overlay.get() else { return reserved };
        let full = matches!(
            &reserved,
            Err(Error::Ipam { source: IpamError::PoolFull { .. }, .. } | Error::NoSubnet { .. })
        );
        if full && overlay.one_more(self, &spec.network).await {
            return self.state.reserve(spec, site);
        }
        overlay.top_up(self, &spec.network);
        reserved
    }

    /// The kernel's side. What is recorded but can't be made is detached again.
    async fn make(&self, netns: Arc<Netns>, endpoint: &Arc<Endpoint>) -> Result<()> {
        let wiring = Arc::new(endpoint.wiring.clone());
        match self.dataplane.attach(netns, wiring).await {
            Ok(times) => {
                self.metrics.step(Verb::Attach, Step::Kernel, times.kernel);
                self.metrics.step(Verb::Attach, Step::Firewall, times.firewall);
                self.state.set_status(&endpoint.key, KernelStatus::Attached);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.key, %error, "attach failed, undoing it");
                if let Err(undo) = self.begin_detach(endpoint, endpoint.issued_at).await {
                    tracing::error!(endpoint = %endpoint.key, error = %undo,
                        "the failed attach is not undone yet; it is tried again");
                    self.state.unwanted(&endpoint.key);
                    self.queue.later(Target::Endpoint(endpoint.key.clone()), 0);
                }
                Err(error.into())
            }
        }
    }

    /// Waits until the addresses of an endpoint on its way out are given back.
    pub(super) async fn wait_released(&self, key: &EndpointKey) -> Result<()> {
        const MOST: std::time::Duration = std::time::Duration::from_secs(5);
        let gone = async {
            loop {
                let released = self.released.notified();
                if self.state.endpoint(key).is_none() {
                    return;
                }
                self.links_to_delete.notify_one();
                released.await;
            }
        };
        let waited = tokio::time::timeout(MOST, gone).await;
        waited.map_err(|_| Error::StillDetaching(key.clone()))
    }
}

/// Gives a reservation back unless the store took it.
struct Reservation<'a> {
    node: &'a Node,
    endpoint: Option<Arc<Endpoint>>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if let Some(endpoint) = &self.endpoint {
            self.node.state.drop_reservation(endpoint, &[]);
        }
    }
}

/// In the log behind the answer, as a rule: nobody waits for the log.
fn say_attached(endpoint: Arc<Endpoint>, took: Duration) {
    let say = async move {
        tokio::task::yield_now().await;
        tracing::info!(sandbox = %endpoint.key.sandbox, endpoint = %endpoint.key,
            network = %endpoint.network, addresses = %shown_addresses(&endpoint),
            micros = took.as_micros() as u64, "attached");
    };
    tokio::spawn(say.in_current_span());
}

fn shown_addresses(endpoint: &Endpoint) -> String {
    endpoint.ips().map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
}
