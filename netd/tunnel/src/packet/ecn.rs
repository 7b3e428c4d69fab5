//! The traffic class: DSCP and ECN go from the inner header to the outer one, and the marks of
//! congested routers come back (RFC 2983, uniform on the way in; RFC 6040).

use super::{be16, put};

/// The bits of ECN in a traffic class.
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
/// Congestion experienced.
const CE: u8 = 0b11;

/// Brings a packet up to date with the traffic class of the header that was around it. False:
/// it is to be dropped, because a router that was congested told a sender that can't hear it.
pub(crate) fn decapsulate(packet: &mut [u8], outer: u8) -> bool {
    // Most packets: the outer header says nothing that the inner one could lack.
    if matches!(outer & ECN, NOT_ECT | ECT_0) {
        return true;
    }
    let Some(inner) = class(packet) else { return true };
    match merged(inner & ECN, outer & ECN) {
        None => false,
        Some(ecn) => {
            if ecn != inner & ECN {
                set(packet, inner & !ECN | ecn);
            }
            true
        }
    }
}

/// RFC 6040, figure 4; `None`: drop.
fn merged(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (NOT_ECT | CE, _) => Some(inner),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

/// The traffic class of a packet. `None`: it is no IP packet.
pub(super) fn class(packet: &[u8]) -> Option<u8> {
    match (packet.first()? >> 4, packet.get(1)?) {
        (4, class) => Some(*class),
        (6, second) => Some(packet.first()? << 4 | second >> 4),
        _ => None,
    }
}

fn set(packet: &mut [u8], class: u8) {
    let before = be16(packet, 0);
    let Some([first, second]) = packet.first_chunk_mut() else { return };
    if *first >> 4 == 6 {
        *first = *first & 0xf0 | class >> 4;
        *second = *second & 0x0f | class << 4;
        return;
    }
    *second = class;
    // Not computed afresh: a header that was damaged stays so (RFC 1624, equation 3).
    let (after, sum) = (be16(packet, 0), be16(packet, 10));
    let whole = u32::from(!sum) + u32::from(!before) + u32::from(after);
    let folded = (whole & 0xffff) + (whole >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    put(packet, 10, &(!(folded as u16)).to_be_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::packet::checksum;

    fn v4(class: u8) -> Vec<u8> {
        let mut packet = vec![0x45, class, 0, 20, 0x12, 0x34, 0x40, 0, 63, 17, 0, 0];
        packet.extend([10, 1, 0, 1, 10, 2, 0, 1]);
        let sum = checksum::finish(checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
        packet
    }

    fn v6(class: u8) -> Vec<u8> {
        let mut packet = vec![0u8; 40];
        (packet[0], packet[1], packet[2]) = (0x60 | class >> 4, class << 4 | 0x0a, 0xbc);
        packet
    }

    #[test]
    fn every_pair_is_as_rfc_6040_says() {
        // Rows: inner Not-ECT, ECT(1), ECT(0), CE. Columns: the same of the outer header.
        let drop = None;
        let expected = [
            [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), drop],
            [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
            [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)],
            [Some(CE), Some(CE), Some(CE), Some(CE)],
        ];
        for (inner, row) in (0u8..).zip(expected) {
            for (outer, expected) in (0u8..).zip(row) {
                for (dscp, make) in [(0xb8, v4 as fn(u8) -> Vec<u8>), (0x28, v6)] {
                    let mut packet = make(dscp | inner);
                    // Another DSCP outside changes nothing.
                    let kept = decapsulate(&mut packet, 0x88 | outer);
                    let got = kept.then(|| class(&packet).unwrap());
                    assert_eq!(got, expected.map(|ecn| dscp | ecn), "{inner:02b} in {outer:02b}");
                    if kept {
                        assert_eq!(packet, make(class(&packet).unwrap()), "nothing else changes");
                    }
                }
            }
        }
    }

    #[test]
    fn a_header_that_was_damaged_stays_so() {
        let mut packet = v4(ECT_0);
        packet[8] ^= 1;
        assert!(decapsulate(&mut packet, CE));
        assert_ne!(checksum::fold(checksum::sum(&packet)), 0xffff);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes: Vec<u8>, outer: u8) {
            let length = bytes.len();
            decapsulate(&mut bytes, outer);
            proptest::prop_assert_eq!(bytes.len(), length);
        }
    }
}
