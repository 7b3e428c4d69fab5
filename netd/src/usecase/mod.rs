//! What netd does: attach, detach, repair, collect.
//!
//! [`Node`] owns all of it. State has one owner each:
//! - the store: which endpoints are wanted and who holds which address (the truth);
//! - [`registry::Registry`]: the same in memory, written only after the store has it,
//!   with free addresses, host ports, and how far the kernel's side is;
//! - the dataplane: nothing that could not be read from the kernel again.
//!
//! Work on one endpoint is serialised by its key's lock; nothing else waits.

mod attach;
mod collect;
mod detach;
mod error;
pub(crate) mod fuzzing;
mod health;
mod locks;
mod networks;
mod ports;
mod queue;
mod reconcile;
mod recorded;
mod records;
mod registry;
mod sandboxes;
mod startup;
mod views;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::Notify;

use crate::{config::Config, dataplane::Dataplane, metrics::Metrics, store::Store};

pub use error::{Error, Result};
pub use health::{ComponentState, Health};
pub use queue::{Queue, Target};
pub use registry::{Registry, Work};
pub use sandboxes::{SandboxInfo, Synchronized};
pub use startup::Startup;
pub use views::{EndpointFilter, NetworkView, NodeCounts, Page};

/// One node's network: everything a request or an event leads to.
#[derive(Debug)]
pub struct Node {
    config: Config,
    store: Arc<dyn Store>,
    dataplane: Arc<Dataplane>,
    registry: Arc<Registry>,
    health: Health,
    metrics: Arc<Metrics>,
    queue: Queue,
    /// Set when start is over: what is made before is no drift.
    started: AtomicBool,
    locks: locks::KeyLocks,
    /// Rung when there is something to reap.
    reap: Notify,
    /// Rung after addresses were given back.
    released: Notify,
}

impl Node {
    /// Puts a node together; nothing is loaded or touched yet, see [`Node::start`].
    pub fn new(
        config: Config,
        store: Arc<dyn Store>,
        dataplane: Arc<Dataplane>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            store,
            dataplane,
            registry: Arc::default(),
            health: Health::default(),
            metrics,
            queue: Queue::default(),
            started: AtomicBool::new(false),
            locks: locks::KeyLocks::default(),
            reap: Notify::new(),
            released: Notify::new(),
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
