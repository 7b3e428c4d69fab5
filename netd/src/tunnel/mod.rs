//! The client of netd-tunnel, the process that moves the packets of userspace backends. It
//! keeps its configuration, also over its own crashes. To send the same configuration again
//! is cheap and disturbs no packet, so callers do that whenever they are not sure.

mod client;
mod error;
mod message;
mod types;

pub use client::TunnelClient;
pub use error::{FieldViolation, TunnelError};
pub use types::{PeerChange, Tunnel, TunnelKind, TunnelPeerName, TunnelStatus};

/// Where netd-tunnel listens by default.
pub const DEFAULT_SOCKET: &str = "/run/netd/tunnel.sock";
