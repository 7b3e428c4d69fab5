//! What a backend answers: the objects that this node and each of its peers need.

use super::command::Command;
use crate::{Lease, LeaseAttrs, Local, peer_problem::PeerProblem};
use netd_domain::overlay::{OverlayDevice, OverlayObject, TunnelDevice, TunnelPeer};

/// What one lease takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PeerPlan {
    /// In the kernel. Two leases may need the same object.
    pub objects: Vec<OverlayObject>,
    /// In a tunnel. Leases of one node give peers of one name, to be put together.
    pub tunnels: Vec<TunnelPeer>,
    /// The operator's commands.
    pub commands: Option<PeerCommands>,
}

/// What to run about one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCommands {
    /// When it comes into force.
    pub add: Option<Command>,
    /// When it ends, or becomes another.
    pub remove: Option<Command>,
}

/// What this node itself takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalPlan {
    /// In the order they are made.
    pub devices: Vec<OverlayDevice>,
    /// Of the tunnel process; each has a device of kind tun.
    pub tunnels: Vec<TunnelDevice>,
    /// Routes for the whole cluster, blackholes.
    pub objects: Vec<OverlayObject>,
    /// Bytes: the most that fits into the overlay, in the worse of the two families.
    pub mtu: u32,
    /// To be run once this node has its subnet (extension's `PostStartupCommand`).
    pub post_startup: Option<Command>,
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

    /// What it takes to reach a peer's subnets. Families that the cluster doesn't have
    /// are left out.
    ///
    /// # Errors
    /// The lease can't be routed to; it holds up no other.
    fn peer(&self, local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem>;
}
