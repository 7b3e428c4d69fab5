//! netd: the node's pod network daemon.
//!
//! Direction of dependency: `api` -> `node` -> {`ipam`, `store`, `overlay`,
//! `dataplane`} -> `domain`.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod doctor;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod tunnel;
