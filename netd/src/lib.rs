//! netd: the node's pod network daemon.
//!
//! Direction of dependency: `api` -> `usecase` -> {`ipam`, `store`, `overlay`,
//! `dataplane`} -> `domain`.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod doctor;
pub mod domain;
#[doc(hidden)]
pub mod fuzzing;
pub mod ipam;
pub mod logging;
pub mod metrics;
pub mod overlay;
pub mod store;
pub mod tunnel;
pub mod usecase;
