//! The thin hook: container runtimes call it to get a network from netd.
//!
//! Each front parses and validates the runtime's request, calls netd over its Unix socket with a
//! timeout, and answers in the runtime's protocol. No front stores anything or speaks netlink,
//! and every fault is reported to the runtime.

pub use netd_cni::{clock, error, input, json, status};

pub mod cli;
mod client;
pub mod cni;
pub mod docker;
mod excerpt;
pub mod install;
pub mod nri;
pub mod oci;
mod service;
