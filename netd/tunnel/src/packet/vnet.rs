//! The header before each packet of a tun device with IFF_VNET_HDR
//! (`struct virtio_net_hdr`, uapi/linux/virtio_net.h), in the machine's byte order.

/// Bytes of it.
pub const SIZE: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// Which segments a packet is to be cut into, or was put together from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// It is one packet.
    None,
    /// TCP in IPv4.
    TcpV4,
    /// TCP in IPv6.
    TcpV6,
    /// UDP in either.
    Udp,
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vnet {
    /// The checksum field holds the pseudo header's sum; the rest is to be added.
    pub needs_checksum: bool,
    /// How to segment.
    pub gso: Gso,
    /// Bytes of all headers of a packet with segments.
    pub header: u16,
    /// Payload bytes a segment.
    pub segment: u16,
    /// Where the summed bytes begin: the upper layer's header.
    pub checksum_start: u16,
    /// Where the checksum field is, from there.
    pub checksum_offset: u16,
}

impl Vnet {
    /// Of one packet whose checksum is right.
    pub const PLAIN: [u8; SIZE] = [0; SIZE];

    /// `None`: too short, or of a kind that was not asked for.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let b: &[u8; SIZE] = bytes.first_chunk()?;
        let gso = match b[1] & !GSO_ECN {
            0 => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return None,
        };
        let word = |a: u8, b: u8| u16::from_ne_bytes([a, b]);
        Some(Self {
            needs_checksum: b[0] & NEEDS_CSUM != 0,
            gso,
            header: word(b[2], b[3]),
            segment: word(b[4], b[5]),
            checksum_start: word(b[6], b[7]),
            checksum_offset: word(b[8], b[9]),
        })
    }

    /// As the kernel wants it.
    pub fn bytes(&self) -> [u8; SIZE] {
        let gso = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let (h, s) = (self.header.to_ne_bytes(), self.segment.to_ne_bytes());
        let (c, o) = (self.checksum_start.to_ne_bytes(), self.checksum_offset.to_ne_bytes());
        [u8::from(self.needs_checksum), gso, h[0], h[1], s[0], s[1], c[0], c[1], o[0], o[1]]
    }
}
