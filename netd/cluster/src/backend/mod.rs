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
mod plan;
mod reach;
mod udp;
mod vxlan;
mod wireguard;

#[cfg(test)]
pub(crate) mod tests;

use crate::BackendConfig;

pub use self::{
    command::Command,
    extension::pre_startup,
    plan::{Backend, LocalPlan, PeerCommands, PeerPlan},
    wireguard::wireguard_devices,
};
pub use crate::peer_problem::PeerProblem;

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
