//! The overlay's model: what the cluster's configuration says, what leases say, and what
//! follows from a lease for this node's kernel. Compatible with flannel's keys, JSON and
//! kernel objects.
//!
//! Who owns what:
//! - etcd: the cluster's configuration (an operator or another tool writes it) and all leases. A node
//!   writes its own lease keys and netd's own keys about it, all bound to one etcd lease;
//!   compare-and-swap decides which node has a subnet.
//! - `membership/`: this node's leases and what is known of the others'. It remembers
//!   both on disk, so that a node without etcd goes on as it was.
//! - `backend/`: nothing. Each is a pure function of this node's facts and a lease.
//! - `node/overlay/`: what is programmed, by comparing that with the kernel.

pub mod backend;
mod config;
pub mod desired;
pub mod flannel;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
mod lease;
mod local;
pub mod membership;
mod peer_problem;
pub mod published;
mod subnets;

pub use self::{
    config::{BackendConfig, ClusterConfig, FamilyRange, WireguardMode},
    identity::Identity,
    lease::{BackendData, Lease, LeaseAttrs},
    local::{Local, Underlay, is_reachable},
    subnets::{Family, Subnets},
};
