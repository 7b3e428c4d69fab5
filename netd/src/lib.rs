//! netd: the pod network daemon of a Kubernetes node.
//!
//! `app` starts everything. `api` turns requests into calls of `node`, which owns the
//! networks and endpoints and uses the crates `netd-store`, `netd-cluster` and
//! `netd-dataplane`.

mod api;
mod app;
pub mod cli;
mod client;
pub mod config;
mod doctor;
mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kernel_features;
mod kernel_modules;
mod logging;
pub mod metrics;
pub mod node;
mod privileges;
mod terminal;
pub mod tunnel;
