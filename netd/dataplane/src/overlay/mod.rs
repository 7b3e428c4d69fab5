//! The overlay's devices, routes, neighbours and forwarding entries.
//!
//! `device.rs`, `objects.rs` and `peers.rs` decide and are pure; `held.rs` reads what the kernel
//! holds; `devices.rs`, `apply.rs` and `wireguard.rs` carry it out; `sync.rs` is the
//! whole of it. It is done on a thread of its own: ten thousand routes delay an attach
//! by no more than the kernel's own lock does.
//!
//! What is netd's own, and so removed when it is wanted no more:
//! - devices whose alias says so (`netlink::overlay_device::MARK`), and whatever permanent
//!   neighbours and forwarding entries are on them,
//! - routes of netd's protocol with a metric of the overlay's range, wherever they lead.
//!
//! A device that flannel made is adopted by its name, and so are its entries. Flannel's
//! routes would win over netd's, see `objects::stands_before_ours`.

mod api;
mod apply;
mod device;
mod devices;
mod held;
mod lookup;
pub(crate) mod objects;
mod peers;
pub(crate) mod report;
mod sync;
#[cfg(test)]
mod tests;
mod wireguard;
mod wireguard_socket;
pub(crate) mod worker;

pub use lookup::{DeviceCounters, KernelRoute, OverlayCapabilities, UnderlayChoice, UnderlayFound};
pub use report::{OverlayReport, OverlaySubject};
