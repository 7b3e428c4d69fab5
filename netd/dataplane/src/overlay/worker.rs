//! What the overlay's thread works with.

use std::sync::Arc;

use netlink_packet_route::link::InfoKind;

use super::wireguard_socket::WireguardSocket;
use crate::{
    DataplaneError,
    error::failed,
    exec::context::{Context, SharedContext},
};

/// State of the thread that does the overlay's work.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub(super) kernel: Context,
    /// Kinds of devices that the kernel can make; asked for once.
    pub(super) kinds: Option<Vec<InfoKind>>,
    /// Opened when it is needed, if the kernel has WireGuard.
    pub(super) generic: Option<WireguardSocket>,
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
