//! What the tables are made from.

use std::{path::PathBuf, sync::Arc};

use netd_domain::{NetworkWiring, Wiring};

/// Name of the tables.
pub(crate) const TABLE: &str = "netd";

/// What the rules depend on besides networks and endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSettings {
    /// The bit of the *conntrack* mark that says "this connection came through one of
    /// our host ports". One bit that nobody else uses.
    pub hostport_mark: u32,
    /// The bit of the packet mark by which kube-proxy asks for masquerade; such
    /// packets are left to it.
    pub kube_proxy_mark: u32,
    /// The `nft` program, 1.0.6 or later; run by [`Firewall::replace`] only.
    pub nft: PathBuf,
    /// File that remembers the tables over a restart; `None`: a restart replaces them.
    pub memory: Option<PathBuf>,
}

impl Default for FirewallSettings {
    fn default() -> Self {
        Self { hostport_mark: 0x2000, kube_proxy_mark: 0x4000, nft: "nft".into(), memory: None }
    }
}

/// Everything that the tables hold.
#[derive(Debug, Clone, Default)]
pub struct FirewallState {
    /// This node's networks; their subnets don't overlap.
    pub networks: Vec<Arc<NetworkWiring>>,
    /// The endpoints attached to them.
    pub endpoints: Vec<Arc<Wiring>>,
}
