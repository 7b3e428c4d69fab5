//! Cutting and putting together are each other's reverse.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::{
    checksum,
    coalesce::Coalescer,
    ip,
    segment::{Cut, complete_checksum},
    vnet::{Gso, SIZE, Vnet},
};

/// A packet as the kernel hands it over: checksums to be completed.
fn large(v4: bool, tcp: bool, payload: &[u8], flags: u8, segment: u16) -> (Vnet, Vec<u8>) {
    let upper = if tcp { 32 } else { 8 };
    let length = upper + payload.len();
    let mut packet = vec![0u8; if v4 { 20 } else { 40 }];
    let start = packet.len();
    let protocol = if tcp { ip::TCP } else { ip::UDP };
    if v4 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&0xfff0u16.to_be_bytes());
        (packet[6], packet[8], packet[9]) = (0x40, 63, protocol);
        packet[12..20].copy_from_slice(&[10, 1, 0, 1, 10, 2, 0, 1]);
        let sum = checksum::finish(checksum::sum(&packet));
        packet[10..12].copy_from_slice(&sum.to_ne_bytes());
    } else {
        (packet[0], packet[6], packet[7]) = (0x60, protocol, 63);
        packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        (packet[8], packet[23], packet[24], packet[39]) = (0xfd, 1, 0xfd, 2);
    }
    let addresses = packet[if v4 { 12..20 } else { 8..40 }].to_vec();
    packet.extend([0x12, 0x34, 0x00, 0x50]);
    let field = if tcp {
        packet.extend(0xffff_f000u32.to_be_bytes());
        packet.extend([0, 0, 0, 9, 0x80, flags, 1, 2, 0, 0, 0, 0]);
        packet.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        16
    } else {
        packet.extend((length as u16).to_be_bytes());
        packet.extend([0, 0]);
        6
    };
    let pseudo = checksum::fold(checksum::pseudo(&addresses, protocol, length as u16));
    packet[start + field..start + field + 2].copy_from_slice(&pseudo.to_ne_bytes());
    packet.extend(payload);
    let gso = match (tcp, v4) {
        (true, true) => Gso::TcpV4,
        (true, false) => Gso::TcpV6,
        (false, _) => Gso::Udp,
    };
    let vnet = Vnet {
        needs_checksum: true,
        gso,
        header: (start + upper) as u16,
        segment,
        checksum_start: start as u16,
        checksum_offset: field as u16,
    };
    (vnet, packet)
}

fn cut(vnet: &Vnet, packet: &[u8]) -> Vec<Vec<u8>> {
    let cut = Cut::new(vnet, packet).unwrap();
    let segment = |index| {
        let mut made = vec![0; cut.header()];
        let payload = cut.segment(packet, index, &mut made).unwrap();
        made.extend(&packet[payload]);
        made
    };
    (0..cut.count()).map(segment).collect()
}

fn holds(packet: &[u8]) -> bool {
    let ip = ip::parse(packet).unwrap();
    let addresses = if ip.source.is_ipv4() { &packet[12..20] } else { &packet[8..40] };
    let upper = &packet[ip.header..];
    let sum = checksum::pseudo(addresses, ip.protocol, upper.len() as u16) + checksum::sum(upper);
    let header =
        !ip.source.is_ipv4() || checksum::fold(checksum::sum(&packet[..ip.header])) == 0xffff;
    ip.length == packet.len() && header && checksum::fold(sum) == 0xffff
}

/// What the device would be given for these packets.
fn put_together(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::new(true);
    let arena: Vec<u8> = packets.concat();
    let mut start = 0;
    for packet in packets {
        let ip = ip::parse(&arena[start..]).unwrap();
        coalescer.push(&arena, start, &ip);
        start += packet.len();
    }
    coalescer.finish(&arena);
    let arenas = [arena.as_slice(), coalescer.headers()];
    let bytes = |pieces: &[super::Piece]| {
        pieces.iter().flat_map(|piece| piece.of(&arenas).to_vec()).collect()
    };
    coalescer.writes().map(|(_, _, pieces)| bytes(pieces)).collect()
}

/// What may never be fragmented needs no identification (RFC 6864): it may change.
fn without_id(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

proptest! {
    #[test]
    fn cut_and_put_together_it_is_the_same(
        v4: bool,
        tcp: bool,
        push: bool,
        payload in prop::collection::vec(any::<u8>(), 1..9000),
        segment in 200u16..1460,
    ) {
        let flags = if push { 0x18 } else { 0x10 };
        let (vnet, packet) = large(v4, tcp, &payload, flags, segment);
        let segments = cut(&vnet, &packet);
        prop_assert_eq!(segments.len(), payload.len().div_ceil(segment.into()));
        for (index, segment) in segments.iter().enumerate() {
            prop_assert!(holds(segment), "segment {}", index);
        }
        let whole = put_together(&segments);
        prop_assert_eq!(whole.len(), 1);
        if segments.len() > 1 {
            let made = Vnet::read(&whole[0]).unwrap();
            prop_assert_eq!(made, vnet);
            prop_assert_eq!(&whole[0][SIZE..], packet.as_slice());
        } else {
            prop_assert_eq!(&whole[0][..SIZE], Vnet::PLAIN.as_slice());
            prop_assert_eq!(&whole[0][SIZE..], segments[0].as_slice());
        }
    }

    #[test]
    fn any_bytes_are_cut_or_refused(mut packet: Vec<u8>, head in any::<[u8; SIZE]>()) {
        if let Some(vnet) = Vnet::read(&head) {
            let _ = complete_checksum(&vnet, &mut packet);
            if let Some(cut) = Cut::new(&vnet, &packet) {
                let mut made = vec![0; cut.header()];
                for index in 0..cut.count() + 1 {
                    let _ = cut.segment(&packet, index, &mut made);
                }
            }
        }
    }

    /// Packets that look alike, in which some bytes were changed: whatever is put
    /// together is cut into exactly what came.
    #[test]
    fn what_does_not_belong_together_stays_apart(
        v4: bool,
        tcp: bool,
        changes in prop::collection::vec((0usize..6, 0usize..90, any::<u8>()), 0..4),
    ) {
        let (vnet, packet) = large(v4, tcp, &[7; 1200], 0x10, 200);
        let mut segments = cut(&vnet, &packet);
        for (index, at, value) in changes {
            // The length stays: else it is another number of packets.
            if !(2..6).contains(&at) {
                segments[index][at] = value;
            }
        }
        segments.retain(|segment| ip::parse(segment).is_some_and(|ip| ip.length == segment.len()));
        let mut again = vec![];
        for write in put_together(&segments) {
            let vnet = Vnet::read(&write).unwrap();
            match vnet.gso {
                Gso::None => again.push(write[SIZE..].to_vec()),
                _ => again.extend(cut(&vnet, &write[SIZE..])),
            }
        }
        // Other flows may get before one that goes on, never packets of one flow.
        let comparable = |packets: Vec<Vec<u8>>| {
            let mut packets: Vec<_> = packets.into_iter().map(without_id).collect();
            packets.sort();
            packets
        };
        prop_assert_eq!(comparable(again), comparable(segments));
    }
}

#[test]
fn flags_of_first_and_last_segment() {
    // CWR, PSH, ACK, FIN.
    let (vnet, packet) = large(true, true, &[1; 1000], 0x99, 400);
    let flags: Vec<u8> = cut(&vnet, &packet).iter().map(|segment| segment[33]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

#[test]
fn a_wrong_checksum_is_not_made_right() {
    let (vnet, packet) = large(true, true, &[1; 1000], 0x10, 400);
    let mut segments = cut(&vnet, &packet);
    segments[1][60] ^= 1;
    let writes = put_together(&segments);
    assert!(writes.iter().any(|write| write[SIZE..] == segments[1]), "it was joined");
}
