//! Attach: choose addresses and ports, record them, then make the interface.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::Instrument as _;

use super::{
    core::Node,
    error::{Error, Result},
    listed::listed,
    pod_netns::path_is_stale,
    queue::Target,
    record::encode,
    run_to_end::run_to_end,
    state::{KernelStatus, Placement},
};
use crate::metrics::{Step, Verb};
use netd_dataplane::Netns;
use netd_domain::ipam::IpamError;
use netd_domain::{AttachSpec, Endpoint, EndpointKey, Invalid, NetworkName, Phase, Route};
use netd_store::{Store as _, TxnOutcome, keys};

/// How often other addresses are tried when the store says that one is in use.
const MAX_TRIES: usize = 16;

impl Node {
    /// Makes an endpoint, or returns the existing one. Runs to its end even if the caller
    /// goes away.
    ///
    /// # Errors
    /// Nothing of the endpoint is left then, with one exception: if the kernel refused it,
    /// its addresses stay in use until its link is gone.
    pub async fn attach(self: &Arc<Self>, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        self.attach_in(spec, None).await
    }

    /// As [`Node::attach`]; with a descriptor, that is the sandbox's namespace, whatever
    /// the path leads to here.
    ///
    /// # Errors
    /// As there.
    pub async fn attach_in(
        self: &Arc<Self>,
        spec: AttachSpec,
        descriptor: Option<OwnedFd>,
    ) -> Result<Arc<Endpoint>> {
        let node = self.clone();
        run_to_end("attach", async move { node.attach_to_end(spec, descriptor).await }).await
    }

    async fn attach_to_end(
        self: &Arc<Self>,
        spec: AttachSpec,
        descriptor: Option<OwnedFd>,
    ) -> Result<Arc<Endpoint>> {
        let start = Instant::now();
        let _lock = self.locks.lock(&spec.key).await;
        let (netns, placement) = sandbox(path_of(&spec)?, descriptor)?;
        let netns = Arc::new(netns);
        self.metrics.step(Verb::Attach, Step::Validate, start.elapsed());
        let validated = Instant::now();
        if let Some(endpoint) = self.find_attached(&spec, &netns).await? {
            return Ok(endpoint);
        }
        if self.state.is_fenced(&spec.key, spec.issued_at) {
            return Err(Error::Detached(spec.key));
        }
        let endpoint = self.reserve_and_record(&spec, placement).await?;
        self.metrics.step(Verb::Attach, Step::IpamStore, validated.elapsed());
        let endpoint = self.make(netns.clone(), endpoint).await?;
        self.metrics.step(Verb::Attach, Step::Total, start.elapsed());
        log_attached(endpoint.clone(), start.elapsed());
        if self.state.is_mac_news(&endpoint) {
            self.announce(&endpoint, netns);
        }
        Ok(endpoint)
    }

    /// The existing endpoint of this key, if the request means that one.
    async fn find_attached(
        self: &Arc<Self>,
        spec: &AttachSpec,
        netns: &Arc<Netns>,
    ) -> Result<Option<Arc<Endpoint>>> {
        let Some((endpoint, _)) = self.state.endpoint(&spec.key) else { return Ok(None) };
        let same = endpoint.netns.is_some_and(|own| own.is_same(&netns.id()));
        if endpoint.phase == Phase::Attached && same {
            let differences = spec.differences(&endpoint);
            if !differences.is_empty() {
                let what = differences.join("; ");
                return Err(Error::Different { key: spec.key.clone(), what });
            }
            // A crash may have interrupted its attach, or it may have failed since. A repeated
            // attach is rare enough to compare with the kernel.
            self.complete_locked(&endpoint, netns.clone()).await?;
            return self.reissued(&endpoint, spec.issued_at).await.map(Some);
        }
        if endpoint.phase == Phase::Attached {
            // At its own path the runtime has put another namespace, so the old one is nobody's.
            let replaced = endpoint.netns_path == spec.netns_path && !endpoint.path_is_foreign;
            if !path_is_stale(&endpoint) || (!replaced && self.still_lives(&endpoint).await?) {
                let own = endpoint.netns.map(|own| format!(", {own}")).unwrap_or_default();
                return Err(Error::Elsewhere {
                    key: spec.key.clone(),
                    have: format!("{}{own}", endpoint.netns_display()),
                    asked: netns.id().to_string(),
                });
            }
            tracing::warn!(endpoint = %spec.key, netns = %endpoint.netns_display(),
                "detaching {} first: it is attached again in another network namespace, and its own \
                 is gone", spec.key);
            self.begin_detach(&endpoint, endpoint.issued_at).await?;
        }
        self.wait_for_release(&spec.key).await?;
        Ok(None)
    }

    /// Records that the endpoint was asked for again: a detach that was issued between the two
    /// requests does not mean it any longer.
    async fn reissued(&self, endpoint: &Arc<Endpoint>, issued_at: u64) -> Result<Arc<Endpoint>> {
        if issued_at <= endpoint.issued_at {
            return Ok(endpoint.clone());
        }
        let mut next = Endpoint::clone(endpoint);
        next.issued_at = issued_at;
        self.record_change(next).await
    }

    /// Chooses addresses and records the intent. The store decides whether they are free.
    pub(super) async fn reserve_and_record(
        &self,
        spec: &AttachSpec,
        site: Placement,
    ) -> Result<Arc<Endpoint>> {
        self.refuse_others_subnets(&spec.network)?;
        for _ in 0..MAX_TRIES {
            let endpoint = self.reserve(spec, site).await?;
            let mut reservation = Reservation { node: self, endpoint: Some(endpoint.clone()) };
            self.refuse_listened(&endpoint.wiring, &[]).await?;
            // Checked again: a detach of the whole sandbox either finds the reservation or
            // has left its tombstone by now.
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
                        "addresses {taken:?} for {} are in use according to the store; trying others",
                        endpoint.key);
                    reservation.endpoint = None;
                    self.state.drop_reservation(&endpoint, &taken);
                }
            }
        }
        let text = format!("{MAX_TRIES} addresses in a row were in use according to the store");
        Err(Error::Internal(text))
    }

    /// Why no endpoint can be attached to the network now; `None`: one can, as far as is known
    /// without trying.
    pub(crate) fn obstacle(&self, name: &NetworkName) -> Option<Error> {
        if let Err(error) = self.refuse_others_subnets(name) {
            return Some(error);
        }
        let error = self.state.obstacle(name)?;
        // The cluster gives another subnet when the first attach needs it.
        let full = matches!(&error, Error::Ipam { .. } | Error::NoSubnet { .. });
        let grows = self.overlay.get().is_some_and(|overlay| overlay.can_grow(name));
        (!full || !grows).then_some(error)
    }

    /// Chooses addresses. If the node's subnets are full and the cluster has others, waits
    /// for another subnet.
    async fn reserve(&self, spec: &AttachSpec, site: Placement) -> Result<Arc<Endpoint>> {
        let reserved = self.state.reserve(spec, site);
        let Some(overlay) = self.overlay.get() else { return reserved };
        let full = matches!(
            &reserved,
            Err(Error::Ipam { source: IpamError::PoolFull { .. }, .. } | Error::NoSubnet { .. })
        );
        if full && overlay.wait_for_subnet(self, &spec.network).await {
            return self.state.reserve(spec, site);
        }
        overlay.request_spare_subnet(self, &spec.network);
        reserved
    }

    /// Makes the interface and the rules. An endpoint that was recorded but can't be made is
    /// detached again.
    async fn make(&self, netns: Arc<Netns>, endpoint: Arc<Endpoint>) -> Result<Arc<Endpoint>> {
        match self.dataplane.attach(netns, endpoint.wiring.clone()).await {
            Ok(made) => {
                self.metrics.step(Verb::Attach, Step::Kernel, made.kernel);
                self.metrics.step(Verb::Attach, Step::Firewall, made.firewall);
                self.state.set_status(&endpoint.key, KernelStatus::Attached);
                match made.skipped_routes.as_slice() {
                    [] => Ok(endpoint),
                    skipped => self.record_without(&endpoint, skipped).await,
                }
            }
            Err(error) => {
                tracing::warn!(endpoint = %endpoint.key, %error, "attach of {} failed: {error}; undoing it", endpoint.key);
                if let Err(undo) = self.begin_detach(&endpoint, endpoint.issued_at).await {
                    tracing::error!(endpoint = %endpoint.key, error = %undo,
                        "the failed attach of {} can't be undone: {undo}; trying again", endpoint.key);
                    self.state.unwanted(&endpoint.key);
                    self.queue.later(Target::Endpoint(endpoint.key.clone()), 0);
                }
                Err(error.into())
            }
        }
    }

    /// Tells the pod's neighbours where its addresses are, after the caller has its answer.
    pub(super) fn announce(&self, endpoint: &Arc<Endpoint>, netns: Arc<Netns>) {
        let (dataplane, endpoint) = (self.dataplane.clone(), endpoint.clone());
        let announce = async move {
            tokio::task::yield_now().await;
            if let Err(error) = dataplane.announce(netns, endpoint.wiring.clone()).await {
                tracing::debug!(endpoint = %endpoint.key, %error,
                    "the addresses of {} could not be announced: {error}", endpoint.key);
            }
        };
        tokio::spawn(announce.in_current_span());
    }

    /// Records that the endpoint has not these routes: another program's interface of the
    /// sandbox has the default route.
    async fn record_without(&self, endpoint: &Endpoint, routes: &[Route]) -> Result<Arc<Endpoint>> {
        let mut changed = endpoint.clone();
        Arc::make_mut(&mut changed.wiring).routes.retain(|route| !routes.contains(route));
        self.store.commit(encode::update(&changed)?).await?;
        let changed = Arc::new(changed);
        self.state.update(changed.clone(), KernelStatus::Attached);
        tracing::info!(endpoint = %endpoint.key,
            "{} has no default route: another interface of its sandbox has one", endpoint.key);
        Ok(changed)
    }

    /// Waits until the addresses of an endpoint that is being removed are free.
    pub(super) async fn wait_for_release(&self, key: &EndpointKey) -> Result<()> {
        const RELEASE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
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
        let waited = tokio::time::timeout(RELEASE_TIMEOUT, gone).await;
        waited.map_err(|_| Error::StillDetaching(key.clone()))
    }
}

/// The sandbox's namespace, and what is recorded of where it is.
fn sandbox(path: &Path, descriptor: Option<OwnedFd>) -> Result<(Netns, Placement)> {
    let Some(descriptor) = descriptor else {
        let netns = Netns::open(path)?;
        let placement = Placement::In(netns.id());
        return Ok((netns, placement));
    };
    let netns = Netns::from_descriptor(descriptor, path)?;
    let placement = match netns.is_at_its_path() {
        true => Placement::In(netns.id()),
        false => Placement::InForeign(netns.id()),
    };
    Ok((netns, placement))
}

/// Undoes a reservation when dropped, unless the store has recorded it.
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

/// Logs after the caller has its answer, as a rule, so that it does not wait for the log.
fn log_attached(endpoint: Arc<Endpoint>, took: Duration) {
    let say = async move {
        tokio::task::yield_now().await;
        let addresses = listed(endpoint.ips());
        tracing::info!(sandbox = %endpoint.key.sandbox, endpoint = %endpoint.key,
            network = %endpoint.network, addresses, micros = took.as_micros() as u64,
            "attached {} {addresses} network {}", endpoint.key, endpoint.network);
    };
    tokio::spawn(say.in_current_span());
}

fn path_of(spec: &AttachSpec) -> Result<&Path> {
    let missing = || Invalid::field("netns_path", "an attach needs the sandbox's namespace");
    spec.netns_path.as_deref().ok_or_else(|| missing().into())
}
