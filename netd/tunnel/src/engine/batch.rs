//! Packets as they came from the device.

use std::io::{self, ErrorKind};

use crate::{
    packet::{
        PACKETS, Piece,
        ip::{self, Ip},
        segment::{self, Cut},
        vnet::{self, Vnet},
    },
    sys::Tun,
};

/// Packets a batch.
const MOST: usize = 32;
/// A batch ends with the packet that makes it this long: what has come is sent before
/// the processor's cache is full of it.
const MAX_BYTES: usize = 256 << 10;
/// Bytes for each: the largest packet and its header, aligned.
const SLOT: usize = 65_536 + 64;

/// A batch, and the memory for the next ones.
pub struct PacketBatch {
    buffer: Vec<u8>,
    /// Bytes in each slot.
    lengths: Vec<usize>,
}

/// A packet of a batch.
#[derive(Debug, Clone, Copy)]
pub enum Packet {
    /// It is sent as it is.
    Whole(Piece, Ip),
    /// It is to be cut; where it lies.
    Cut(Piece, Cut),
}

impl Packet {
    /// Its header.
    pub fn ip(&self) -> &Ip {
        match self {
            Self::Whole(_, ip) => ip,
            Self::Cut(_, cut) => cut.ip(),
        }
    }
}

impl Default for PacketBatch {
    fn default() -> Self {
        Self { buffer: vec![0; MOST * SLOT], lengths: Vec::with_capacity(MOST) }
    }
}

impl PacketBatch {
    /// Reads what the device has; returns whether there may be more.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&mut self, tun: &Tun) -> io::Result<bool> {
        self.lengths.clear();
        let mut bytes = 0;
        for slot in self.buffer.chunks_exact_mut(SLOT) {
            match tun.read(slot) {
                Ok(length) => {
                    self.lengths.push(length);
                    bytes += length;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => return Ok(true),
                Err(e) => return Err(e),
            }
            if bytes >= MAX_BYTES {
                break;
            }
        }
        Ok(true)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Where they lie.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// One of them, its checksum completed. `None`: it is no IP packet.
    pub fn packet(&mut self, index: usize) -> Option<Packet> {
        let start = index * SLOT;
        let slot = self.buffer.get_mut(start..start + *self.lengths.get(index)?)?;
        let (head, packet) = slot.split_at_mut_checked(vnet::SIZE)?;
        let vnet = Vnet::read(head)?;
        let start = (start + vnet::SIZE) as u32;
        if vnet.gso == vnet::Gso::None {
            segment::complete_checksum(&vnet, packet)?;
            let ip = ip::parse(packet)?;
            let piece = Piece { arena: PACKETS, start, len: ip.length as u32 };
            return Some(Packet::Whole(piece, ip));
        }
        let cut = Cut::new(&vnet, packet)?;
        let piece = Piece { arena: PACKETS, start, len: cut.ip().length as u32 };
        Some(Packet::Cut(piece, cut))
    }
}
