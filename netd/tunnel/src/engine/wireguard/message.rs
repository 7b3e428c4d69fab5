//! Sizes of WireGuard's messages.

/// What a data message is longer than the packet in it.
pub(super) const OVERHEAD: usize = 32;
/// Packets of a peer that wait for a session; boringtun keeps so many and drops the rest.
pub(super) const MAX_WAITING: u64 = 256;
/// The type of a message with a packet in it.
pub(super) const DATA: u8 = 4;
/// Bytes of the longest message that is no data.
pub(super) const HANDSHAKE: usize = 148;
