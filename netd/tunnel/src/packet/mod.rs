//! Packets as bytes: pure, no system calls. Everything here reads hostile input.

pub mod checksum;
pub mod coalesce;
pub(crate) mod ecn;
pub mod ip;
pub mod segment;
pub mod vnet;

/// A stretch of one of the buffers ("arenas") that a batch of packets lies in. Packets
/// are moved through the tunnel as lists of these, so that payload is not copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which arena.
    pub arena: u8,
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

/// The arena that packets lie in as they came.
pub(crate) const PACKETS: u8 = 0;
/// The arena of headers made here.
pub const HEADERS: u8 = 1;

impl Piece {
    /// The piece's bytes; empty if it lies outside, which no caller makes.
    pub fn of<'a>(&self, arenas: &[&'a [u8]; 2]) -> &'a [u8] {
        let start = self.start as usize;
        let arena = arenas.get(usize::from(self.arena)).copied().unwrap_or_default();
        arena.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// Big-endian 16 bits at `at`; 0 outside.
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => u16::from_be_bytes([a, b]),
        _ => 0,
    }
}

/// Big-endian 32 bits at `at`; 0 outside.
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

/// Writes bytes at `at`; nothing if they don't fit.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests;
