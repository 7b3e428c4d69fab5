//! A network's devices and settings on the host.

mod api;
pub(crate) mod bridge;
pub(crate) mod host_networks;
pub(crate) mod plan;
pub(crate) mod underlay;
