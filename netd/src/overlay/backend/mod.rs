//! Backends: what carries packets between nodes. Each is pure: from this node's facts and
//! a peer's lease to the objects that the kernel has to hold.

use crate::{
    domain::overlay::{OverlayDevice, OverlayObject, TunnelPeer},
    overlay::{Lease, LeaseAttrs, Local},
};

/// What one lease takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerPlan {
    /// In the kernel. Two leases may need the same object.
    pub objects: Vec<OverlayObject>,
    /// In a tunnel. Leases of one node give peers of one name, to be put together.
    pub tunnels: Vec<TunnelPeer>,
}

/// What this node itself takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalPlan {
    /// In the order they are made.
    pub devices: Vec<OverlayDevice>,
    /// Routes for the whole cluster, blackholes.
    pub objects: Vec<OverlayObject>,
    /// Bytes: the most that fits into the overlay, in the worse of the two families.
    pub mtu: u32,
}

/// Why a lease can't be routed to, with the field, its value and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PeerProblem {
    /// `BackendType`, `BackendData.VtepMAC`, `PublicIP`, ...
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// Carries packets between nodes.
pub trait Backend: std::fmt::Debug + Send + Sync {
    /// What peers have to know of this node.
    fn announce(&self, local: &Local) -> LeaseAttrs;

    /// What this node takes, whoever its peers are.
    ///
    /// # Errors
    /// What is missing on this node (a public address of a family, an MTU too small).
    fn local(&self, local: &Local) -> Result<LocalPlan, PeerProblem>;

    /// What it takes to reach a peer's subnets.
    ///
    /// # Errors
    /// The lease can't be routed to; it holds up no other.
    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem>;
}
