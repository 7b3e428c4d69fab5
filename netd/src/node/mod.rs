//! What netd does: attach, detach, repair, collect.
//!
//! [`Node`] owns all of it. State has one owner each:
//! - the store: which endpoints are wanted and who holds which address (the truth);
//! - [`registry::Registry`]: the same in memory, written only after the store has it,
//!   with free addresses, host ports, and how far the kernel's side is;
//! - the dataplane: nothing that could not be read from the kernel again.
//!
//! Work on one endpoint is serialised by its key's lock, work on networks by one lock
//! for all of them, and what changes tombstones or the record of an endpoint on its way
//! out by `endings`: the reaper has no key's lock, because an attach may hold it while
//! it waits for the reaper. Locks are taken in this order: a key's, `endings`.

mod attach;
mod cnm;
mod collect;
mod detach;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod health;
mod locks;
mod networks;
mod observed;
pub mod overlay;
mod ports;
mod queue;
mod reconcile;
mod recorded;
mod records;
mod registry;
mod reservations;
mod sandboxes;
mod startup;
mod views;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, OnceLock, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify};

use crate::config::Config;
use crate::metrics::Metrics;
use netd_dataplane::Dataplane;
use netd_domain::NetworkName;
use netd_store::Store;

pub use error::{Error, Result};
pub use health::{ComponentState, Health};
pub use queue::{Queue, Target};
pub use registry::{Hold, Registry, Work};
pub use sandboxes::{SandboxInfo, Synchronized};
pub use startup::Startup;
pub use views::{EndpointFilter, NetworkView, NodeCounts, Page};

/// One node's network: everything a request or an event leads to.
#[derive(Debug)]
pub struct Node {
    config: Config,
    store: Arc<observed::Observed>,
    dataplane: Arc<Dataplane>,
    registry: Arc<Registry>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    queue: Queue,
    /// Set when start is over: what is made before is no drift.
    started: AtomicBool,
    /// Networks that were changed by request: what that takes in the kernel is no drift.
    changed: Mutex<HashSet<NetworkName>>,
    /// Networks in whose subnets docker0 has an address: dockerd gives out theirs, too.
    docker0: Mutex<HashMap<NetworkName, IpNet>>,
    locks: locks::KeyLocks,
    topology: AsyncMutex<()>,
    endings: AsyncMutex<()>,
    /// Rung when a sandbox lost its primary endpoint and still has others.
    orphans: Notify,
    /// Rung when there is something to reap.
    reap: Notify,
    /// Rung after addresses were given back.
    released: Notify,
    /// Rung after a network got other pools.
    pools_changed: Notify,
    /// This node's part of the cluster; not set: it has none.
    overlay: OnceLock<Arc<overlay::Overlay>>,
}

impl Node {
    /// Puts a node together; nothing is loaded or touched yet, see [`Node::start`].
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        dataplane: Arc<Dataplane>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let health = Arc::new(Health::default());
        let store = observed::Observed::new(store, metrics.clone(), health.clone());
        Arc::new(Self {
            config,
            store: Arc::new(store),
            dataplane,
            registry: Arc::default(),
            health,
            metrics,
            queue: Queue::default(),
            started: AtomicBool::new(false),
            changed: Mutex::default(),
            docker0: Mutex::default(),
            locks: locks::KeyLocks::default(),
            topology: AsyncMutex::default(),
            endings: AsyncMutex::default(),
            orphans: Notify::new(),
            reap: Notify::new(),
            released: Notify::new(),
            pools_changed: Notify::new(),
            overlay: OnceLock::new(),
        })
    }
}

/// Seconds since the Unix epoch.
pub(crate) fn now_unix() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// CLOCK_BOOTTIME in nanoseconds: the clock of `issued_at`.
pub fn now_boot() -> u64 {
    let clock = nix::time::ClockId::CLOCK_BOOTTIME;
    let now = nix::time::clock_gettime(clock).map(Duration::from).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
