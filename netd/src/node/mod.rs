//! What netd does: attach, detach, repair, garbage collection.
//!
//! [`Node`] owns all of it. State has one owner each:
//! - the store: which endpoints are wanted and who holds which address (the truth);
//! - [`NodeState`]: the same in memory, written only after the store has it,
//!   with free addresses, host ports, and how far the kernel's side is;
//! - the dataplane: nothing that could not be read from the kernel again.
//!
//! Work on one endpoint is serialised by its key's lock, work on networks by one lock
//! for all of them, and what changes tombstones or the record of an endpoint on its way
//! out by `removals`: the reaper has no key's lock, because an attach may hold it while
//! it waits for the reaper. Locks are taken in this order: a key's, `removals`.

mod address_reservations;
mod attach;
mod clock;
mod cnm;
mod core;
mod detach;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod gc;
mod health;
mod instrumented_store;
mod leased_pools;
mod locks;
mod networks;
pub mod overlay;
mod ports;
mod queue;
mod read_model;
mod reconcile;
mod record;
mod sandboxes;
mod startup;
mod state;

pub use clock::now_boot;
pub(crate) use clock::now_unix;
pub use cnm::EndpointRef;
pub use core::Node;
pub use error::{Error, Result};
pub use health::{ComponentState, Health};
pub use read_model::{EndpointFilter, NetworkView, NodeCounts, Page};
pub use sandboxes::{SandboxInfo, Synchronized};
pub use startup::Startup;
pub use state::{AddressReservation, KernelStatus};
