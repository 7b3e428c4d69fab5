//! flannel's udp backend: a datagram is an IP packet, without a header.
//!
//! The TTL is left alone: the kernel counts it down where it routes into the tunnel and
//! out of it, as with any other device.

use std::{collections::HashSet, net::SocketAddr};

use ipnet::IpNet;

use super::{
    batch::{Packet, PacketBatch},
    io::{Receiving, Sending},
    local::{Local, accepts},
    outbox::Destination,
    replicas::Replicas,
};
use crate::{
    packet::{HEADERS, PACKETS, Piece, ecn, ip, segment::Cut},
    peers::PeerChange,
    sys::{Received, Receiver},
    table::Table,
};

/// The backend.
#[derive(Debug)]
pub struct Udp {
    pub(super) local: Local,
    peers: Replicas<PeerSet, Vec<PeerChange>>,
}

/// All peers, which are known by their endpoints.
#[derive(Debug, Clone, Default)]
struct PeerSet {
    endpoints: HashSet<SocketAddr>,
    table: Table<SocketAddr>,
}

impl PeerSet {
    fn apply(&mut self, changes: &[PeerChange]) {
        for old in changes.iter().filter_map(|change| change.old.as_ref()) {
            self.endpoints.remove(&old.endpoint);
            for net in &old.subnets {
                self.table.remove(net);
            }
        }
        for new in changes.iter().filter_map(|change| change.new.as_ref()) {
            self.endpoints.insert(new.endpoint);
            for net in &new.subnets {
                self.table.insert(*net, new.endpoint);
            }
        }
    }
}

impl Udp {
    pub(super) fn new(local: &[IpNet]) -> Self {
        Self { local: Local::new(local), peers: Replicas::default() }
    }

    pub(super) fn change_peers(&self, changes: &[PeerChange]) {
        self.peers.change(changes.to_vec(), |peers, changes| peers.apply(changes));
    }

    pub(super) fn outbound(&self, batch: &mut PacketBatch, sending: &mut Sending<'_>) {
        let peers = self.peers.load();
        let mut headers = vec![];
        // Of the packet before: most are followed by one to the same address.
        let mut last = None;
        for index in 0..batch.len() {
            let packet = batch.packet(index);
            let to = packet.and_then(|packet| {
                let destination = packet.ip().destination;
                last = last.filter(|(known, _)| *known == destination);
                if last.is_none() {
                    last = Some((destination, *peers.table.find(destination)?));
                }
                last.map(|(_, to)| to)
            });
            let (Some(packet), Some(to)) = (packet, to) else {
                sending.tally.refused += 1;
                continue;
            };
            let to = Destination { to, class: packet.ip().class };
            match packet {
                Packet::Whole(piece, _) => add(sending, to, &[piece]),
                Packet::Cut(piece, cut) => {
                    cut_to(sending, to, batch.bytes(), (piece, cut), &mut headers);
                }
            }
        }
        sending.flush(&[batch.bytes(), &headers]);
    }

    pub(super) fn inbound(&self, datagrams: &mut Receiver, receiving: &mut Receiving<'_>) {
        let (peers, local) = (self.peers.load(), self.local.load());
        let (messages, buffer) = datagrams.split();
        // Of the packet before that was taken: most are followed by one of the same.
        let mut last = None;
        for message in messages {
            let sender = message.from;
            if !peers.endpoints.contains(&sender) {
                receiving.tally.refused += message.len.div_ceil(message.segment).max(1) as u64;
                continue;
            }
            self::packets(message).for_each(|(start, len)| {
                let bytes = buffer.get_mut(start..start + len).unwrap_or_default();
                let taken = ip::parse(bytes).filter(|ip| {
                    last == Some((sender, ip.source, ip.destination))
                        || peers.table.find(ip.source) == Some(&sender)
                            && accepts(&local, &peers.table, ip.destination)
                });
                match taken.filter(|_| ecn::decapsulate(bytes, message.class)) {
                    Some(ip) => {
                        last = Some((sender, ip.source, ip.destination));
                        receiving.coalescer.push(buffer, start, &ip);
                    }
                    None => receiving.tally.refused += 1,
                }
            });
        }
    }
}

fn add(sending: &mut Sending<'_>, to: Destination, pieces: &[Piece]) {
    sending.tally.packets += 1;
    sending.tally.bytes += pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>();
    sending.outbox.add(to, pieces);
}

fn cut_to(
    sending: &mut Sending<'_>,
    to: Destination,
    bytes: &[u8],
    (whole, cut): (Piece, Cut),
    headers: &mut Vec<u8>,
) {
    let packet = whole.of(&[bytes, &[]]);
    for index in 0..cut.count() {
        let at = headers.len();
        headers.resize(at + cut.header(), 0);
        let made = headers.get_mut(at..).unwrap_or_default();
        let Some(payload) = cut.segment(packet, index, made) else {
            sending.tally.refused += 1;
            return;
        };
        let header = Piece { arena: HEADERS, start: at as u32, len: cut.header() as u32 };
        let payload = Piece {
            arena: PACKETS,
            start: whole.start + payload.start as u32,
            len: payload.len() as u32,
        };
        add(sending, to, &[header, payload]);
    }
}

/// Where the datagrams of a message begin, and their lengths; an empty one is one too.
pub(super) fn packets(message: &Received) -> impl Iterator<Item = (usize, usize)> {
    let (first, end) = (message.start, message.start + message.len);
    (first..end.max(first + 1))
        .step_by(message.segment.max(1))
        .map(move |start| (start, message.segment.min(end - start)))
}
