//! What callers can read: networks, endpoints, counts.

use std::{sync::Arc, time::Duration};

use super::{
    core::Node,
    error::{Error, Result},
    health::Health,
    record::decode,
    state::{KernelStatus, NetworkState},
};
use crate::config::Config;
use crate::metrics::Metrics;
use netd_domain::ipam::PoolUsage;
use netd_domain::{Endpoint, EndpointKey, NetworkName};
use netd_store::{Revision, Store, keys};

/// A network and its state.
#[derive(Debug, Clone)]
pub struct NetworkView {
    /// The network.
    pub state: NetworkState,
    /// How full its pools are.
    pub pools: Vec<PoolUsage>,
    /// How many endpoints it has.
    pub endpoints: usize,
    /// `None`: the kernel is known to match.
    pub problem: Option<String>,
}

/// Selects endpoints; an empty field selects all.
#[derive(Debug, Clone, Default)]
pub struct EndpointFilter {
    /// Network name.
    pub network: String,
    /// Sandbox id.
    pub sandbox: String,
    /// Pod namespace.
    pub pod_namespace: String,
    /// Pod name.
    pub pod_name: String,
}

impl EndpointFilter {
    fn matches(&self, endpoint: &Endpoint) -> bool {
        let same = |want: &str, have: &str| want.is_empty() || want == have;
        same(&self.network, endpoint.network.as_str())
            && same(&self.sandbox, endpoint.key.sandbox.as_str())
            && same(&self.pod_namespace, &endpoint.pod.namespace)
            && same(&self.pod_name, &endpoint.pod.name)
    }
}

/// One page of endpoints, as the store has them.
#[derive(Debug, Clone)]
pub struct Page {
    /// In the order of their keys as text; with the status of each, if it is known.
    pub endpoints: Vec<(Endpoint, Option<KernelStatus>)>,
    /// The last key of this page, if there are more.
    pub next: Option<EndpointKey>,
    /// A watch from this revision sees every later change, and none that is in the list.
    pub revision: Revision,
}

/// Bytes of records in a page, unless one record alone is larger. gRPC clients refuse
/// messages above 4 MiB by default.
const MAX_PAGE_BYTES: usize = 2 << 20;
/// After so many records other tasks may run.
const YIELD_EVERY: usize = 64;

/// How many networks and endpoints there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeCounts {
    /// Networks.
    pub networks: usize,
    /// Endpoints, whatever their state.
    pub endpoints: usize,
    /// Endpoints that are being made or repaired.
    pub attaching: usize,
    /// Endpoints that are being removed.
    pub detaching: usize,
}

impl Node {
    /// Chains of other firewalls that drop forwarded packets by policy: pods' traffic
    /// needs rules there. Where the kernel does not answer at once, what was read last;
    /// `None`: it never was.
    pub async fn foreign_forward_drops(&self) -> Option<Vec<String>> {
        const PATIENCE: Duration = Duration::from_millis(200);
        let asked = tokio::time::timeout(PATIENCE, self.dataplane.foreign_forward_drops()).await;
        let mut last = self.forward_drops.lock();
        match asked {
            Ok(Ok(found)) => *last = Some(found),
            // The status of the component "firewall" says why.
            Ok(Err(_)) => *last = None,
            Err(_) => {}
        }
        last.clone()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store, for watches.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Which parts of the node work.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The node's metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// One network.
    ///
    /// # Errors
    /// [`Error::NoNetwork`].
    pub fn network(&self, name: &NetworkName) -> Result<NetworkView> {
        let state = self.state.network(name).ok_or_else(|| Error::NoNetwork(name.clone()))?;
        Ok(self.view(state))
    }

    /// All networks, by name.
    pub fn networks(&self) -> Vec<NetworkView> {
        self.state.networks().into_iter().map(|state| self.view(state)).collect()
    }

    fn view(&self, state: NetworkState) -> NetworkView {
        let name = state.network.name.clone();
        NetworkView {
            pools: self.state.usage(&name),
            endpoints: self.state.count_in(&name),
            problem: self.health.problem(&format!("network/{name}")),
            state,
        }
    }

    /// The network that has the address in one of its pools.
    pub(crate) fn network_of(&self, ip: std::net::IpAddr) -> Option<NetworkName> {
        self.state.network_of(&ip.into())
    }

    /// One endpoint.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`].
    pub fn endpoint(&self, key: &EndpointKey) -> Result<(Arc<Endpoint>, KernelStatus)> {
        self.state.endpoint(key).ok_or_else(|| Error::NoEndpoint(key.clone()))
    }

    /// A page of at most `size` endpoints after `after`. It is read from the store and not
    /// from memory, so that records and revision belong together.
    ///
    /// # Errors
    /// The store's.
    pub async fn page(
        &self,
        after: Option<&EndpointKey>,
        size: usize,
        filter: &EndpointFilter,
    ) -> Result<Page> {
        let snapshot = self.store.list(keys::ENDPOINTS).await?;
        let after = after.map(keys::endpoint).unwrap_or_default();
        let mut page = Page { endpoints: Vec::new(), next: None, revision: snapshot.revision };
        let mut bytes = 0;
        for (n, entry) in snapshot.entries.iter().filter(|e| e.key > after).enumerate() {
            if n % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
            // Unreadable records are reported at start.
            let Ok(endpoint) = decode::endpoint(entry) else { continue };
            if !filter.matches(&endpoint) {
                continue;
            }
            bytes += entry.value.len();
            let full = page.endpoints.len() >= size || bytes > MAX_PAGE_BYTES;
            if let Some((last, _)) = page.endpoints.last().filter(|_| full) {
                page.next = Some(last.key.clone());
                break;
            }
            let held = self.state.endpoint(&endpoint.key);
            let status = held.filter(|(e, _)| e.sequence == endpoint.sequence).map(|(_, w)| w);
            page.endpoints.push((endpoint, status));
        }
        Ok(page)
    }

    /// Counts networks and endpoints.
    pub fn counts(&self) -> NodeCounts {
        let mut counts =
            NodeCounts { networks: self.state.networks().len(), ..NodeCounts::default() };
        for (_, status) in self.state.endpoints() {
            counts.endpoints += 1;
            match status {
                KernelStatus::Reserved
                | KernelStatus::Attaching
                | KernelStatus::Failed(_)
                | KernelStatus::Unwanted => {
                    counts.attaching += 1;
                }
                KernelStatus::DetachingLink
                | KernelStatus::LinkDetached
                | KernelStatus::DetachFailed => counts.detaching += 1,
                KernelStatus::Attached => {}
            }
        }
        counts
    }
}
