//! The overlay's devices, routes, neighbours and forwarding entries.
//!
//! `device_plan.rs`, `objects.rs` and `peers.rs` decide and are pure; `dump.rs` reads what the
//! kernel has; `device_apply.rs`, `entry_apply.rs` and `wireguard.rs` carry it out; `sync.rs` does
//! all of it in order. It runs on a thread of its own, so ten thousand routes delay an attach
//! only by the time that the kernel holds its lock.
//!
//! What is netd's own, and removed once the overlay does not need it:
//! - devices whose alias says so (`netlink::overlay_device::MARK`), and whatever permanent
//!   neighbours and forwarding entries are on them,
//! - routes of netd's protocol with a metric of the overlay's range, wherever they lead.
//!
//! A device that flannel made is adopted by its name, and so are its entries. Flannel's
//! routes would win over netd's, see `objects::stands_before_ours`.

mod api;
mod device_apply;
mod device_plan;
mod dump;
mod entry_apply;
mod lookup;
pub(crate) mod objects;
mod own_subnets;
mod peers;
mod port_holder;
pub(crate) mod report;
mod sync;
#[cfg(test)]
mod tests;
mod wireguard;
mod wireguard_compare;
mod wireguard_socket;
pub(crate) mod worker;

pub use lookup::{DeviceCounters, KernelRoute, OverlayCapabilities, UnderlayChoice, UnderlayFound};
pub use report::{OverlayReport, OverlaySubject};
