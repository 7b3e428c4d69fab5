//! Docker's container network model: the endpoint is created first, its sandbox comes
//! later.
//!
//! Who owns what: netd owns the addresses, the veth pair, the host's side and the rules;
//! the runtime owns where the sandbox's side is, its name there, and the sandbox's routes.
//! The record says how far the runtime is as far as netd has seen it ([`Stage`]). The
//! runtime's word ends it (Leave, Detach); what nobody says is seen in the kernel: that
//! the side has arrived, was renamed, or was taken back. netd never puts it into a
//! sandbox from which the runtime has taken it.

use std::{path::PathBuf, sync::Arc};

use super::{
    core::Node,
    error::{Error, Result},
    listed::listed,
    queue::Target,
    record::encode,
    run_to_end::run_to_end,
    state::{KernelStatus, Placement},
};
use netd_dataplane::{DataplaneError, Netns, Seen};
use netd_domain::{
    AttachSpec, Endpoint, EndpointKey, Phase, PodSide, PortMapping, Route, RuntimePlaced, Stage,
    port_mapping,
};
use netd_store::Store as _;

/// An endpoint by its key and, optionally, by the source that must have created it. Another
/// source's endpoint counts as missing.
#[derive(Debug, Clone)]
pub struct EndpointRef {
    /// The key.
    pub key: EndpointKey,
    /// See [`Endpoint::is_of_source`]; `None`: any source.
    pub source: Option<String>,
}

impl From<EndpointKey> for EndpointRef {
    fn from(key: EndpointKey) -> Self {
        Self { key, source: None }
    }
}

impl EndpointRef {
    fn refers_to(&self, endpoint: &Endpoint) -> bool {
        self.source.as_ref().is_none_or(|source| endpoint.is_of_source(source))
    }
}

impl Node {
    /// Records an endpoint that is in no sandbox yet, or returns the existing one.
    /// Runs to its end even if the caller goes away, as everything here.
    ///
    /// # Errors
    /// Nothing of it is left then.
    pub async fn create_endpoint(self: &Arc<Self>, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        let node = self.clone();
        run_to_end("create endpoint", async move { node.create_locked(spec).await }).await
    }

    /// Makes the endpoint's pair for the sandbox at `netns_path`.
    ///
    /// # Errors
    /// It is in no sandbox then.
    pub async fn join(
        self: &Arc<Self>,
        endpoint: impl Into<EndpointRef>,
        netns_path: PathBuf,
    ) -> Result<Arc<Endpoint>> {
        let (node, endpoint) = (self.clone(), endpoint.into());
        run_to_end("join", async move { node.join_locked(&endpoint, netns_path).await }).await
    }

    /// Leaves the pair to the runtime.
    ///
    /// # Errors
    /// The store's.
    pub async fn leave(self: &Arc<Self>, endpoint: impl Into<EndpointRef>) -> Result<()> {
        let (node, wanted) = (self.clone(), endpoint.into());
        let leave = async move {
            let _lock = node.locks.lock(&wanted.key).await;
            match node.attached(&wanted) {
                Some(endpoint) => node.leave_sandbox(&endpoint).await,
                None => Ok(()),
            }
        };
        run_to_end("leave", leave).await
    }

    /// Replaces the endpoint's host ports.
    ///
    /// # Errors
    /// Another endpoint has one of the ports, or the kernel refused; the old ports stay.
    pub async fn publish(
        self: &Arc<Self>,
        endpoint: impl Into<EndpointRef>,
        ports: Vec<PortMapping>,
        is_gateway: bool,
    ) -> Result<Arc<Endpoint>> {
        let (node, wanted) = (self.clone(), endpoint.into());
        let publish = async move {
            let _lock = node.locks.lock(&wanted.key).await;
            let endpoint = node.find_joinable(&wanted)?;
            let mut next = Endpoint::clone(&endpoint);
            if let Some(placed) = &mut next.runtime_placed {
                placed.is_gateway = is_gateway;
            }
            Arc::make_mut(&mut next.wiring).port_mappings = ports;
            node.change_ports(&endpoint, next).await
        };
        run_to_end("publish", publish).await
    }

    /// The endpoint, unless it is missing, on its way out or another source's.
    fn attached(&self, wanted: &EndpointRef) -> Option<Arc<Endpoint>> {
        let (endpoint, _) = self.state.endpoint(&wanted.key)?;
        (endpoint.phase == Phase::Attached && wanted.refers_to(&endpoint)).then_some(endpoint)
    }

    /// The endpoint, if it can join a sandbox.
    fn find_joinable(&self, wanted: &EndpointRef) -> Result<Arc<Endpoint>> {
        let found = self.attached(wanted);
        let endpoint = found.ok_or_else(|| Error::NoEndpoint(wanted.key.clone()))?;
        if endpoint.runtime_placed.is_none() {
            return Err(Error::NotMoved(wanted.key.clone()));
        }
        Ok(endpoint)
    }

    async fn create_locked(&self, spec: AttachSpec) -> Result<Arc<Endpoint>> {
        let _lock = self.locks.lock(&spec.key).await;
        if let Some((endpoint, _)) = self.state.endpoint(&spec.key) {
            if endpoint.phase == Phase::Attached {
                return match difference(&spec, &endpoint) {
                    None => Ok(endpoint),
                    Some(what) => Err(Error::Different { key: spec.key, what }),
                };
            }
            self.wait_for_release(&spec.key).await?;
        }
        if self.state.is_fenced(&spec.key, spec.issued_at) {
            return Err(Error::Detached(spec.key));
        }
        let endpoint = self.reserve_and_record(&spec, Placement::Unplaced).await?;
        self.state.set_status(&spec.key, KernelStatus::Attached);
        tracing::info!(endpoint = %endpoint.key, network = %endpoint.network, "created {} {} network {}", endpoint.key, listed(endpoint.ips()), endpoint.network);
        Ok(endpoint)
    }

    async fn join_locked(&self, wanted: &EndpointRef, path: PathBuf) -> Result<Arc<Endpoint>> {
        let key = &wanted.key;
        let _lock = self.locks.lock(key).await;
        let endpoint = self.find_joinable(wanted)?;
        let have = endpoint.netns_path.as_ref().filter(|_| endpoint.is_joined());
        if let Some(have) = have.filter(|have| **have != path && have.exists()) {
            return Err(Error::WrongNetns {
                key: key.clone(),
                asked: path.display().to_string(),
                have: have.display().to_string(),
            });
        }
        if have == Some(&path) {
            match self.locate(&endpoint).await {
                Ok(placed) if placed.is_joined() => return Ok(placed),
                Err(Error::NotPlaced(_)) => return Ok(endpoint),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        let pending = Arc::new(at_stage(&endpoint, Stage::Pending, Some(path)));
        self.store.commit(encode::update(&pending)?).await?;
        self.state.update(pending.clone(), KernelStatus::Attaching);
        let made = self.dataplane.prepare(pending.wiring.clone()).await;
        self.state.set_status(key, KernelStatus::Attached);
        if let Err(error) = made {
            self.leave_sandbox(&pending).await?;
            return Err(error.into());
        }
        tracing::info!(endpoint = %key, netns = %pending.netns_display(), "joined {key} to {}", pending.netns_display());
        Ok(pending)
    }

    /// Records that the endpoint is in no sandbox: the runtime may do with the sandbox's
    /// side what it likes.
    async fn leave_sandbox(&self, endpoint: &Endpoint) -> Result<()> {
        if endpoint.runtime_placed.is_none() {
            return Err(Error::NotMoved(endpoint.key.clone()));
        }
        if !endpoint.is_joined() {
            return Ok(());
        }
        let next = at_stage(endpoint, Stage::Created, None);
        self.store.commit(encode::update(&next)?).await?;
        self.dataplane.forget(&next.wiring.host_ifname).await?;
        tracing::info!(endpoint = %next.key, "{} left its sandbox", next.key);
        self.state.update(Arc::new(next), KernelStatus::Attached);
        Ok(())
    }

    /// Finds where the sandbox's side is, records it, and repairs what is netd's. The
    /// caller holds the key's lock.
    ///
    /// # Errors
    /// [`Error::NotPlaced`]: the runtime has not moved it yet.
    pub(super) async fn locate(&self, endpoint: &Arc<Endpoint>) -> Result<Arc<Endpoint>> {
        let Some(placed) = endpoint.runtime_placed.as_ref().filter(|_| endpoint.is_joined()) else {
            return Ok(endpoint.clone());
        };
        let netns = match endpoint.netns_path.as_deref().map(Netns::open) {
            Some(Ok(netns)) => Some(Arc::new(netns)),
            // That the system is short of descriptors does not say where the side is.
            Some(Err(error @ (DataplaneError::Exhausted { .. } | DataplaneError::Io { .. }))) => {
                return Err(error.into());
            }
            Some(Err(_)) | None => None,
        };
        let wiring = endpoint.wiring.clone();
        let seen = self.dataplane.locate(netns.clone(), wiring, endpoint.pod_side()).await?;
        match (seen, netns, placed.stage) {
            (Seen::Inside { up: false, .. }, _, Stage::Pending) => {
                Err(Error::NotPlaced(endpoint.key.clone()))
            }
            (Seen::Inside { name, .. }, Some(netns), stage) => {
                let mut next = at_stage(endpoint, Stage::Placed, endpoint.netns_path.clone());
                Arc::make_mut(&mut next.wiring).ifname = name;
                next.netns = Some(netns.id());
                let next = Arc::new(next);
                if stage == Stage::Pending {
                    // What netd makes inside comes before the record says that the runtime is
                    // done: from then on the pod's side is the pod's.
                    self.complete_locked(&next, netns.clone()).await?;
                }
                if next != *endpoint {
                    self.store.commit(encode::update(&next)?).await?;
                    self.state.update(next.clone(), KernelStatus::Attaching);
                }
                self.repair_locked(&next, netns).await?;
                Ok(next)
            }
            (Seen::Missing, Some(netns), Stage::Placed)
                if endpoint.netns.is_some_and(|own| own.is_same(&netns.id())) =>
            {
                // The routes that the runtime had set vanished with the pair.
                let mut whole = Endpoint::clone(endpoint);
                Arc::make_mut(&mut whole.wiring).routes = routes_of_a_new_pair(placed);
                self.repair_locked(&Arc::new(whole), netns).await?;
                Ok(endpoint.clone())
            }
            (Seen::Outside, Some(_), Stage::Placed) => {
                tracing::warn!(endpoint = %endpoint.key,
                    "the runtime took {} out of its sandbox", endpoint.key);
                self.leave_sandbox(endpoint).await?;
                self.find_joinable(&endpoint.key.clone().into())
            }
            (Seen::Missing, _, Stage::Pending) => {
                // netd ended before it had made the pair, or another program removed it.
                self.leave_sandbox(endpoint).await?;
                self.find_joinable(&endpoint.key.clone().into())
            }
            (_, _, Stage::Pending) => Err(Error::NotPlaced(endpoint.key.clone())),
            // The namespace is gone: garbage collection removes the endpoint.
            _ => Ok(endpoint.clone()),
        }
    }

    async fn change_ports(&self, old: &Arc<Endpoint>, next: Endpoint) -> Result<Arc<Endpoint>> {
        port_mapping::check_families(&next.wiring.port_mappings, next.wiring.ips())?;
        self.refuse_listened(&next.wiring, &old.wiring.port_mappings).await?;
        self.state.change_ports(old, &next)?;
        let next = Arc::new(next);
        let rules = (old.wiring.clone(), next.wiring.clone());
        let told = match encode::update(&next) {
            Ok(txn) => self.store.commit(txn).await.map(drop).map_err(Error::from),
            Err(error) => Err(error),
        };
        let made = match told {
            Ok(()) if rules.0.port_mappings == rules.1.port_mappings => Ok(()),
            Ok(()) => {
                let (old, new) = rules.clone();
                self.dataplane.change_rules(old, new).await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            self.state.change_ports(&next, old)?;
            self.store.commit(encode::update(old)?).await?;
            self.dataplane.change_rules(rules.1, rules.0).await?;
            return Err(error);
        }
        self.state.replace(next.clone());
        if next.pod_side() == PodSide::Placed {
            // A routed one's link lets packets from 127.0.0.1 through only now.
            self.queue.soon(Target::Endpoint(next.key.clone()));
        }
        Ok(next)
    }
}

fn at_stage(endpoint: &Endpoint, stage: Stage, netns_path: Option<PathBuf>) -> Endpoint {
    let mut next = endpoint.clone();
    next.netns_path = netns_path;
    next.netns = None;
    Arc::make_mut(&mut next.wiring).ifname = next.key.staging_ifname();
    if let Some(placed) = &mut next.runtime_placed {
        placed.stage = stage;
    }
    next
}

/// Without the default routes if another endpoint is the sandbox's gateway, as far as is
/// known.
fn routes_of_a_new_pair(placed: &RuntimePlaced) -> Vec<Route> {
    let set = |route: &&Route| placed.is_gateway || route.destination.prefix_len() > 0;
    let wanted = placed.routes.iter().filter(set);
    wanted.cloned().collect()
}

/// In what the existing endpoint differs from the request.
fn difference(spec: &AttachSpec, endpoint: &Endpoint) -> Option<String> {
    if endpoint.runtime_placed.is_none() {
        return Some("a sandbox of its own".into());
    }
    if endpoint.network != spec.network {
        return Some(format!("network \"{}\"", endpoint.network));
    }
    let other = spec.addresses.iter().find(|ip| !endpoint.ips().any(|own| own == **ip));
    if other.is_some() {
        let own: Vec<_> = endpoint.ips().map(|ip| ip.to_string()).collect();
        return Some(format!("the addresses {}", own.join(", ")));
    }
    let mac = endpoint.wiring.mac;
    (spec.mac.is_some_and(|asked| asked != mac)).then(|| format!("MAC {mac}"))
}
