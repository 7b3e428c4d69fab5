//! What callers are shown.

use std::sync::Arc;

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

/// A network and how it is.
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

/// Narrows a list; empty fields don't.
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
    fn likes(&self, endpoint: &Endpoint) -> bool {
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
    /// In the order of their keys as text; with how far each is, if that is known.
    pub endpoints: Vec<(Endpoint, Option<KernelStatus>)>,
    /// More come after this one.
    pub next: Option<EndpointKey>,
    /// A watch from it sees every change of what is listed, and none before.
    pub revision: Revision,
}

/// A page's records are not larger together, unless one alone is; bytes. gRPC clients
/// refuse messages above 4 MiB unless told otherwise.
const MOST_PAGE_BYTES: usize = 2 << 20;
/// Records between two pauses, in which other calls go on.
const PAUSE: usize = 64;

/// How many there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct NodeCounts {
    /// Networks.
    pub networks: usize,
    /// Endpoints, whatever their state.
    pub endpoints: usize,
    /// Of those, not made or being repaired.
    pub attaching: usize,
    /// Of those, on their way out.
    pub detaching: usize,
}

impl Node {
    /// Chains of other firewalls that drop forwarded packets by policy: pods' traffic
    /// needs rules there.
    ///
    /// # Errors
    /// The kernel's chains can't be read.
    pub async fn foreign_forward_drops(&self) -> Result<Vec<String>> {
        Ok(self.dataplane.foreign_forward_drops().await?)
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The store, for watches.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Which parts work.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// What is counted.
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

    /// The network that an address is of.
    pub fn network_of(&self, ip: std::net::IpAddr) -> Option<NetworkName> {
        self.state.network_of(&ip.into())
    }

    /// One endpoint.
    ///
    /// # Errors
    /// [`Error::NoEndpoint`].
    pub fn endpoint(&self, key: &EndpointKey) -> Result<(Arc<Endpoint>, KernelStatus)> {
        self.state.endpoint(key).ok_or_else(|| Error::NoEndpoint(key.clone()))
    }

    /// A page of at most `size` endpoints after `after`. From the store and not from
    /// memory, which follows it: so records and revision belong together.
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
            if n % PAUSE == PAUSE - 1 {
                tokio::task::yield_now().await;
            }
            // Unreadable records are reported at start.
            let Ok(endpoint) = decode::endpoint(entry) else { continue };
            if !filter.likes(&endpoint) {
                continue;
            }
            bytes += entry.value.len();
            let full = page.endpoints.len() >= size || bytes > MOST_PAGE_BYTES;
            if let Some((last, _)) = page.endpoints.last().filter(|_| full) {
                page.next = Some(last.key.clone());
                break;
            }
            let held = self.state.endpoint(&endpoint.key);
            let work = held.filter(|(e, _)| e.sequence == endpoint.sequence).map(|(_, w)| w);
            page.endpoints.push((endpoint, work));
        }
        Ok(page)
    }

    /// How many there are of what.
    pub fn counts(&self) -> NodeCounts {
        let mut counts =
            NodeCounts { networks: self.state.networks().len(), ..NodeCounts::default() };
        for (_, work) in self.state.endpoints() {
            counts.endpoints += 1;
            match work {
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
