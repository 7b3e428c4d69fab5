//! Cuts a packet of the kernel's into what goes over the wire: the kernel hands over up
//! to 64 KiB of TCP or UDP payload behind one header, and leaves checksums to us.

use std::ops::Range;

use super::{
    be16, be32, checksum,
    ip::{self, Ip},
    put,
    vnet::{Gso, Vnet},
};

/// Headers longer than this are refused: nothing sends such.
pub(crate) const MAX_HEADER: usize = 256;

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Completes the checksum of a packet that is sent as it is. `None`: the fields lead
/// outside the packet.
pub(crate) fn complete_checksum(vnet: &Vnet, packet: &mut [u8]) -> Option<()> {
    if !vnet.needs_checksum {
        return Some(());
    }
    let (start, offset) = (usize::from(vnet.checksum_start), usize::from(vnet.checksum_offset));
    let summed = packet.get_mut(start..)?;
    let field = summed.get(offset..offset + 2)?.len();
    let mut value = checksum::finish(checksum::sum(summed));
    // UDP: zero means "none" (RFC 768).
    if value == 0 && offset == UDP_CHECKSUM {
        value = 0xffff;
    }
    debug_assert_eq!(field, 2);
    put(summed, offset, &value.to_ne_bytes());
    Some(())
}

const UDP_CHECKSUM: usize = 6;
const TCP_CHECKSUM: usize = 16;

/// How a packet is cut.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    ip: Ip,
    /// Where the upper layer's header begins.
    upper: usize,
    /// Where the payload begins.
    payload: usize,
    /// Payload bytes a segment.
    size: usize,
    tcp: bool,
}

impl Cut {
    /// Checks what the kernel says about a packet against the packet. `None`: they don't
    /// fit, or it has no segments.
    pub fn new(vnet: &Vnet, packet: &[u8]) -> Option<Self> {
        let ip = ip::parse(packet)?;
        let upper = usize::from(vnet.checksum_start);
        let tcp = match (vnet.gso, ip.source.is_ipv4()) {
            (Gso::TcpV4, true) | (Gso::TcpV6, false) => true,
            (Gso::Udp, _) => false,
            _ => return None,
        };
        let header = match tcp {
            true => usize::from(packet.get(upper + 12)? >> 4) * 4,
            false => 8,
        };
        let payload = upper.checked_add(header)?;
        let size = usize::from(vnet.segment);
        let fits = upper >= ip.header && payload <= MAX_HEADER && payload <= ip.length;
        (fits && size > 0 && header >= if tcp { 20 } else { 8 }).then_some(Self {
            ip,
            upper,
            payload,
            size,
            tcp,
        })
    }

    /// The header that was read.
    pub fn ip(&self) -> &Ip {
        &self.ip
    }

    /// How many segments; at least 1.
    pub fn count(&self) -> usize {
        (self.ip.length - self.payload).div_ceil(self.size).max(1)
    }

    /// Bytes of each segment's header.
    pub fn header(&self) -> usize {
        self.payload
    }

    /// Writes the header of the segment `index`, from 0, to `out`, and says which bytes
    /// of the packet follow it. `None`: there is no such segment, or `out` is shorter
    /// than [`Self::header`].
    pub fn segment(&self, packet: &[u8], index: usize, out: &mut [u8]) -> Option<Range<usize>> {
        let start = self.payload.checked_add(index.checked_mul(self.size)?)?;
        let end = (start + self.size).min(self.ip.length);
        let payload = packet.get(start..end)?;
        let out = out.get_mut(..self.payload)?;
        out.copy_from_slice(packet.get(..self.payload)?);
        let length = self.payload + payload.len();
        let last = end == self.ip.length;
        match self.ip.source.is_ipv4() {
            true => self.fix_v4(out, length, index),
            false => put(out, 4, &((length - 40) as u16).to_be_bytes()),
        }
        match self.tcp {
            true => self.fix_tcp(out, index, last),
            false => put(out, self.upper + 4, &((length - self.upper) as u16).to_be_bytes()),
        }
        self.fix_checksum(out, payload, length);
        Some(start..end)
    }

    fn fix_v4(&self, out: &mut [u8], length: usize, index: usize) {
        put(out, 2, &(length as u16).to_be_bytes());
        let id = be16(out, 4).wrapping_add(index as u16);
        put(out, 4, &id.to_be_bytes());
        put(out, 10, &[0, 0]);
        let sum = checksum::sum(out.get(..self.ip.header).unwrap_or_default());
        put(out, 10, &checksum::finish(sum).to_ne_bytes());
    }

    fn fix_tcp(&self, out: &mut [u8], index: usize, last: bool) {
        let sequence = be32(out, self.upper + 4).wrapping_add((index * self.size) as u32);
        put(out, self.upper + 4, &sequence.to_be_bytes());
        if let Some(flags) = out.get_mut(self.upper + 13) {
            *flags &= if last { !0 } else { !(FIN | PSH) };
            *flags &= if index == 0 { !0 } else { !CWR };
        }
    }

    fn fix_checksum(&self, out: &mut [u8], payload: &[u8], length: usize) {
        let addresses = match self.ip.source.is_ipv4() {
            true => 12..20,
            false => 8..40,
        };
        let (protocol, field) = match self.tcp {
            true => (ip::TCP, TCP_CHECKSUM),
            false => (ip::UDP, UDP_CHECKSUM),
        };
        put(out, self.upper + field, &[0, 0]);
        let addresses = out.get(addresses).unwrap_or_default();
        let sum = checksum::pseudo(addresses, protocol, (length - self.upper) as u16)
            + checksum::sum(out.get(self.upper..).unwrap_or_default())
            + checksum::sum(payload);
        let value = match checksum::finish(sum) {
            0 if !self.tcp => 0xffff,
            value => value,
        };
        put(out, self.upper + field, &value.to_ne_bytes());
    }
}
