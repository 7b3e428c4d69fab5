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

use std::sync::Arc;

use crate::{
    Dataplane, DataplaneError,
    error::failed,
    exec::context::{Context, SharedContext},
};
use netd_domain::overlay::{OverlayChange, OverlayState};

pub use lookup::{DeviceCounters, KernelRoute, OverlayCapabilities, UnderlayChoice, UnderlayFound};
pub use report::{OverlayReport, OverlaySubject};

/// State of the thread that does the overlay's work.
#[derive(Debug)]
pub(crate) struct Overlay {
    kernel: Context,
    /// Kinds of devices that the kernel can make; asked for once.
    kinds: Option<sync::Kinds>,
    /// Opened when it is needed, if the kernel has WireGuard.
    generic: Option<wireguard::Generic>,
}

impl Overlay {
    /// Opens this thread's socket.
    pub(crate) fn open(shared: Arc<SharedContext>) -> Result<Self, DataplaneError> {
        /// Answers to a whole batch of refusals.
        const BUFFER: i32 = 4 << 20;
        let kernel = Context::open(shared)?;
        kernel.socket.set_buffers(BUFFER).map_err(failed("making room for answers"))?;
        Ok(Self { kernel, kinds: None, generic: None })
    }

    /// What it causes carries this number.
    pub(crate) fn port(&self) -> u32 {
        self.kernel.socket.port()
    }
}

impl Dataplane {
    /// Reads what the kernel holds, makes true what `wanted` says, adopts what is right,
    /// and removes what of netd's own is there beyond. From then on what somebody else
    /// changes of it is a [`super::Drift::Overlay`].
    ///
    /// # Errors
    /// The kernel can't be asked; what it refuses is in the report.
    pub async fn sync_overlay(
        &self,
        wanted: Arc<OverlayState>,
    ) -> Result<OverlayReport, DataplaneError> {
        self.overlay.call(move |overlay| overlay.sync(&wanted)).await
    }

    /// Makes a change without reading what is there; what it costs does not grow with
    /// the number of peers. Devices have to be there (see [`Dataplane::sync_overlay`]).
    ///
    /// # Errors
    /// As for `sync_overlay`.
    pub async fn change_overlay(
        &self,
        change: OverlayChange,
    ) -> Result<OverlayReport, DataplaneError> {
        self.overlay.call(move |overlay| overlay.change(&change)).await
    }
}
