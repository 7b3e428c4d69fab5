//! [`Node`]: what it owns, and how it is put together.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock, atomic::AtomicBool},
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use super::{
    health::Health, instrumented_store::InstrumentedStore, locks::KeyLocks, overlay::Overlay,
    queue::Queue, state::NodeState, withheld_pools::HostPools,
};
use crate::config::Config;
use crate::metrics::Metrics;
use netd_dataplane::Dataplane;
use netd_domain::{IfName, NetworkName};
use netd_store::Store;

/// One node's network: what requests and events act on.
#[derive(Debug)]
pub struct Node {
    pub(super) config: Config,
    pub(super) store: Arc<InstrumentedStore>,
    pub(super) dataplane: Arc<Dataplane>,
    pub(super) state: Arc<NodeState>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) queue: Queue,
    /// Set when the start is over: repairs before that are not drift.
    pub(super) started: AtomicBool,
    /// Networks that a request has changed: the repairs that follow are not drift.
    pub(super) changed: Mutex<HashSet<NetworkName>>,
    /// Networks in whose subnets docker0 has an address: dockerd assigns their addresses, too.
    pub(super) docker0: Mutex<HashMap<NetworkName, IpNet>>,
    /// Which pools the kernel must not get, because the host itself is in them.
    pub(super) host_pools: Mutex<HostPools>,
    /// What [`Node::foreign_forward_drops`] read last.
    pub(super) forward_drops: Mutex<Option<Vec<String>>>,
    pub(super) locks: KeyLocks,
    pub(super) network_changes: AsyncMutex<()>,
    pub(super) removals: AsyncMutex<()>,
    /// Host links of endpoints whose records were refused at the start: nobody's strays.
    pub(super) refused_links: Mutex<HashSet<IfName>>,
    /// Notified when a sandbox lost its primary endpoint and still has others.
    pub(super) orphans: Notify,
    /// Notified when there are detached links to delete.
    pub(super) links_to_delete: Notify,
    /// Notified after addresses became free.
    pub(super) released: Notify,
    /// Notified after a network got other pools.
    pub(super) pools_changed: Notify,
    /// This node's part of the cluster; not set if the node is not in a cluster.
    pub(super) overlay: OnceLock<Arc<Overlay>>,
}

impl Node {
    /// Puts a node together. Nothing is read or changed yet, see [`Node::start`].
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        dataplane: Arc<Dataplane>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let health = Arc::new(Health::default());
        let store = InstrumentedStore::new(store, metrics.clone(), health.clone());
        Arc::new(Self {
            config,
            store: Arc::new(store),
            dataplane,
            state: Arc::default(),
            health,
            metrics,
            queue: Queue::default(),
            started: AtomicBool::new(false),
            changed: Mutex::default(),
            docker0: Mutex::default(),
            host_pools: Mutex::default(),
            forward_drops: Mutex::default(),
            locks: KeyLocks::default(),
            network_changes: AsyncMutex::default(),
            removals: AsyncMutex::default(),
            refused_links: Mutex::default(),
            orphans: Notify::new(),
            links_to_delete: Notify::new(),
            released: Notify::new(),
            pools_changed: Notify::new(),
            overlay: OnceLock::new(),
        })
    }
}
