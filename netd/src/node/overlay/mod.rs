//! The overlay at work: this node's leases become its pools, the others' leases become
//! what the kernel and the tunnels hold.
//!
//! Who owns what:
//! - the membership: which subnets this node has, what is known of the others, on disk too;
//! - `ClusterModel`: what follows from that (`Desired`), and what the kernel refused;
//! - the kernel and the tunnel process: what is applied; it is read back, never assumed.
//!
//! `Overlay::on_update` takes updates of leases: it changes what is wanted and applies the
//! difference. Whatever may differ otherwise becomes a `Target::Overlay`, which compares
//! everything. One lock is held in both, so that they never run at the same time.

mod apply;
mod capacity;
mod command;
mod core;
mod docker0;
mod local;
mod local_node;
mod malloc_trim;
mod on_update;
mod publish;
mod read_model;
mod remove_node;
mod start;
mod subnet_file;
mod take_over_vtep;
mod tunnels;
mod watch_wireguard;

pub use core::{EtcdRecords, Overlay, OverlayParts};
pub use local_node::LocalNode;
pub use read_model::{ClusterView, NodeView, RouteView};
