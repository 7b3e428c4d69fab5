//! What a node is told when it joins the cluster.

use std::{path::PathBuf, time::Duration};

use crate::Subnets;
use netd_store::keys::ClusterKeys;

/// How long leases that vanish by the dozen stay in force.
pub const DEFAULT_HOLD: Duration = Duration::from_secs(30);

/// What a node is told about its part in the cluster.
#[derive(Debug, Clone)]
pub struct MembershipOptions {
    /// Where the cluster's keys are.
    pub keys: ClusterKeys,
    /// A directory that outlives a reboot; made if it is not there.
    pub state_dir: PathBuf,
    /// A directory that is empty after a reboot; made if it is not there.
    pub run_dir: PathBuf,
    /// The node's name, for people; at most 253 bytes.
    pub node_name: String,
    /// netd's version, for people.
    pub version: String,
    /// How long the node's leases last without renewal; whole seconds, at least some.
    pub ttl: Duration,
    /// How long leases stay in force that vanished together with most others.
    pub hold: Duration,
    /// The only subnets that the node may have (Kubernetes' podCIDR); `None`: it chooses.
    pub pod_cidr: Option<Subnets>,
    /// What `subnet.env` says that the node has: it is preferred if it is free, and taken
    /// over if flannel on this node has it.
    pub previous: Option<Subnets>,
}
