//! What a tunnel has to know of an IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{be16, ecn};

/// TCP's protocol number.
pub const TCP: u8 = 6;
/// UDP's protocol number.
pub const UDP: u8 = 17;

/// An IP packet's header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Who says it sent it.
    pub source: IpAddr,
    /// Where to.
    pub destination: IpAddr,
    /// Bytes of the header; of IPv6 without extension headers.
    pub header: usize,
    /// Bytes of the whole packet, by its header; at most what there is.
    pub length: usize,
    /// The upper layer, or the first extension header.
    pub protocol: u8,
    /// DSCP and ECN.
    pub class: u8,
}

/// Reads a header. `None`: no IP packet, or cut short. What follows the packet is
/// no part of it.
pub fn parse(packet: &[u8]) -> Option<Ip> {
    match packet.first()? >> 4 {
        4 => parse_v4(packet),
        6 => parse_v6(packet),
        _ => None,
    }
}

fn parse_v4(packet: &[u8]) -> Option<Ip> {
    let fixed: &[u8; 20] = packet.first_chunk()?;
    let header = usize::from(fixed[0] & 0xf) * 4;
    let length = usize::from(be16(fixed, 2));
    if header < 20 || length < header || length > packet.len() {
        return None;
    }
    let address = |at: usize| {
        let bytes = fixed.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
        bytes.map(|b| IpAddr::V4(Ipv4Addr::from(b)))
    };
    let (source, destination) = (address(12)?, address(16)?);
    let class = ecn::class(packet)?;
    Some(Ip { source, destination, header, length, protocol: fixed[9], class })
}

fn parse_v6(packet: &[u8]) -> Option<Ip> {
    let fixed: &[u8; 40] = packet.first_chunk()?;
    let length = 40 + usize::from(be16(fixed, 4));
    if length > packet.len() {
        return None;
    }
    let address = |at: usize| {
        let bytes = fixed.get(at..at + 16).and_then(|b| <[u8; 16]>::try_from(b).ok());
        bytes.map(|b| IpAddr::V6(Ipv6Addr::from(b)))
    };
    let (source, destination) = (address(8)?, address(24)?);
    let class = ecn::class(packet)?;
    Some(Ip { source, destination, header: 40, length, protocol: fixed[6], class })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut packet = [0u8; 60];
        packet[0] = 0x45;
        packet[3] = 60;
        assert_eq!(parse(&packet).unwrap().length, 60);
        for (ihl, length) in [(5u8, 61u8), (5, 19), (4, 60), (0, 60), (15, 59)] {
            packet[0] = 0x40 | ihl;
            packet[3] = length;
            assert_eq!(parse(&packet), None, "{ihl} {length}");
        }
        packet[0] = 0x60;
        (packet[4], packet[5]) = (0, 20);
        assert_eq!(parse(&packet).unwrap().length, 60);
        packet[5] = 21;
        assert_eq!(parse(&packet), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            if let Some(ip) = parse(&bytes) {
                proptest::prop_assert!(ip.header <= ip.length && ip.length <= bytes.len());
            }
        }
    }
}
