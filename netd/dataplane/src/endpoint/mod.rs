//! A pod's endpoint: from its wiring to the steps that make it true, and back out again.
//!
//! `plan.rs` compares a wiring with what `observed.rs` holds and names the steps of `op.rs`;
//! it is pure. `apply.rs` carries the steps out, for a first attach (`attach.rs`), a repair
//! (`reconcile.rs`) and the container network model (`cnm.rs`); `teardown.rs` removes links.

mod apply;
pub(crate) mod attach;
pub(crate) mod cnm;
pub(crate) mod limit;
mod link_state;
pub(crate) mod observed;
pub(crate) mod op;
pub(crate) mod plan;
pub(crate) mod reconcile;
pub(crate) mod teardown;
#[cfg(test)]
mod tests;
mod wait_ready;
