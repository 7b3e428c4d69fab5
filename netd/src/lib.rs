//! netd: the node's pod network daemon.
//!
//! Direction of dependency: `api` -> `node` -> {`ipam`, `store`, `overlay`,
//! `dataplane`} -> `domain`.

pub mod api;
pub mod app;
pub mod cli;
mod client;
pub mod config;
pub mod doctor;
mod exec;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod kernel_features;
pub mod logging;
pub mod metrics;
pub mod node;
mod terminal;
pub mod tunnel;
