//! The thin hook: what container runtimes call to get a network from netd.
//!
//! Each front parses and validates what its runtime says, makes one gRPC call with
//! a deadline over netd's Unix socket, and answers in the runtime's words. No front
//! holds state, speaks netlink or retries: a fault is reported, never hidden.

pub use netd_cni::{clock, error, json, refusal};

pub mod cli;
pub mod client;
pub mod cni;
pub mod docker;
mod excerpt;
pub mod install;
pub mod nri;
pub mod oci;
mod service;
