//! Sizes of WireGuard's messages.

/// What a data message is longer than the packet in it.
pub(super) const OVERHEAD: usize = 32;
/// Bytes of the longest message that is no data.
pub(super) const HANDSHAKE: usize = 148;
