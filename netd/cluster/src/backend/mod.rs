//! Backends: what carries packets between nodes. Each is pure: from this node's facts and
//! a peer's lease to the objects that the kernel has to hold.
//!
//! Which of a peer's public addresses is used: IPv4 pods' packets go to `PublicIP` and
//! IPv6 pods' to `PublicIPv6`, as with flannel; where this node has no address of that
//! family, to the other one, unless the backend can't (host-gw, ipip). udp has one tunnel
//! for both families, over IPv4 if this node has it. wireguard: by its mode.

mod alloc;
mod command;
mod extension;
mod host_gw;
mod ipip;
mod reach;
mod udp;
mod vxlan;
mod wireguard;

#[cfg(test)]
pub(crate) mod tests;

use crate::{BackendConfig, Lease, LeaseAttrs, Local};
use netd_domain::overlay::{OverlayDevice, OverlayObject, TunnelDevice, TunnelPeer};

pub use command::Command;
pub use extension::pre_startup;

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

/// Why a lease can't be routed to, with the field, its value and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PeerProblem {
    /// `BackendType`, `BackendData.VtepMAC`, `PublicIP`, ...
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl PeerProblem {
    /// A problem with a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
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

/// The backend that a cluster's configuration asks for.
pub fn backend(config: &BackendConfig) -> Box<dyn Backend> {
    match config.clone() {
        BackendConfig::Vxlan { vni, port, gbp, learning, direct_routing, mtu } => {
            Box::new(vxlan::Vxlan { vni, port, gbp, learning, direct_routing, mtu })
        }
        BackendConfig::HostGw => Box::new(host_gw::HostGw),
        BackendConfig::Udp { port } => Box::new(udp::Udp { port }),
        BackendConfig::Wireguard { mode, preshared_key, port, port_v6, mtu, keepalive } => {
            let ports = wireguard::Ports { v4: port, v6: port_v6 };
            Box::new(wireguard::Wireguard { mode, preshared_key, ports, mtu, keepalive })
        }
        BackendConfig::Ipip { direct_routing } => Box::new(ipip::Ipip { direct_routing }),
        BackendConfig::Extension { pre_startup: _, post_startup, subnet_add, subnet_remove } => {
            Box::new(extension::Extension { post_startup, subnet_add, subnet_remove })
        }
        BackendConfig::Alloc => Box::new(alloc::Alloc),
    }
}
