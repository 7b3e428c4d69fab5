//! Makes a pod's endpoint as its wiring says, repairs it, and removes it.
//!
//! `plan.rs` is pure: it compares a wiring with the kernel's state (`observed.rs`) and names
//! the steps between them (`op.rs`). `apply.rs` carries the steps out, for a first attach
//! (`attach.rs`), a repair (`reconcile.rs`) and the container network model (`cnm.rs`);
//! `check.rs` says whether it works, and what others changed in the sandbox;
//! `create.rs` and `encode.rs` make the requests, `wait_ready.rs` waits until packets pass.
//! `teardown.rs` removes the links.

pub(crate) mod adopt;
pub(crate) mod announce;
mod api;
mod apply;
pub(crate) mod attach;
mod check;
pub(crate) mod cnm;
mod create;
mod encode;
mod indexes;
pub(crate) mod limit;
pub(crate) mod observed;
pub(crate) mod op;
pub(crate) mod plan;
pub(crate) mod pod_links;
pub(crate) mod reconcile;
pub(crate) mod teardown;
#[cfg(test)]
mod tests;
mod wait_ready;
