//! What follows from one change of a lease.

use crate::backend::Command;
use netd_domain::overlay::{OverlayChange, TunnelPeer, TunnelPeerName};

/// What follows from one change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// For the kernel.
    pub kernel: OverlayChange,
    /// For the tunnel process, in one call with the next: each peer whole.
    pub tunnels_set: Vec<TunnelPeer>,
    /// For the tunnel process.
    pub tunnels_removed: Vec<TunnelPeerName>,
    /// The operator's commands (extension), to be run in this order.
    pub commands: Vec<Command>,
}

impl Delta {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
