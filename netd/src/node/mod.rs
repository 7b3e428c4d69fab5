//! What netd does: attach, detach, repair, garbage collection.
//!
//! [`Node`] owns all of it. State has one owner each:
//! - the store: which endpoints are wanted and which addresses they have (the truth);
//! - `NodeState`: the same in memory, written only after the store has it, with free
//!   addresses, host ports, and each endpoint's status in the kernel;
//! - the dataplane: nothing that could not be read from the kernel again.
//!
//! Work on one endpoint is serialised by its key's lock, work on networks by one lock
//! for all of them (`network_changes`). `removals` serialises changes of tombstones and of
//! the records of endpoints that are being removed: the task that deletes links takes no
//! key's lock, because an attach may hold it while it waits for that task. Locks are taken
//! in this order: a key's, `removals`.

mod address_reservations;
mod attach;
mod check;
mod clock;
mod cluster;
mod cnm;
mod core;
mod detach;
mod error;
mod external_pools;
mod fights;
mod firewall;
mod follow_mac;
mod follow_mtu;
mod foreign;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gc;
mod health;
mod host_listeners;
mod host_pools;
mod instrumented_store;
mod leased_pools;
mod listed;
mod liveness;
mod locks;
mod networks;
pub mod overlay;
mod pace;
mod pod_netns;
mod pods;
mod ports;
mod queue;
mod read_model;
mod reconcile;
mod record;
mod record_change;
mod run_to_end;
mod sandboxes;
mod startup;
mod state;
mod withheld_pools;

pub use check::SandboxNetns;
pub use clock::now_boot;
pub(crate) use clock::now_unix;
pub use cnm::EndpointRef;
pub use core::Node;
pub use error::{Error, Result};
pub use health::{ComponentState, Health};
pub use read_model::{EndpointFilter, NetworkView, NodeCounts, Page};
pub use sandboxes::{SandboxInfo, Synchronized};
pub use startup::Startup;
pub use state::KernelStatus;
