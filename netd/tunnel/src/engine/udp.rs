//! flannel's udp backend: a datagram is an IP packet, without a header.
//!
//! The TTL is left alone: the kernel counts it down where it routes into the tunnel and
//! out of it, as with any other device.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::{
    batch::{Packet, PacketBatch},
    io::{Receiving, Sending},
    local::{Local, accepts},
};
use crate::{
    packet::{HEADERS, PACKETS, Piece, ip, segment::Cut},
    spec::Peers,
    sys::{Received, Receiver},
    table::Table,
};

/// The backend.
#[derive(Debug)]
pub struct Udp {
    pub(super) local: Local,
    peers: ArcSwap<PeerSet>,
}

/// All peers; replaced as a whole, so that it is read without a lock.
#[derive(Debug, Default)]
struct PeerSet {
    endpoints: Vec<SocketAddr>,
    /// Index in `endpoints`.
    by_endpoint: HashMap<SocketAddr, u32>,
    /// Index in `endpoints`.
    table: Table<u32>,
}

impl Udp {
    pub(super) fn new(local: &[IpNet]) -> Self {
        Self { local: Local::new(local), peers: ArcSwap::default() }
    }

    pub(super) fn set_peers(&self, peers: &Peers) {
        let mut set = PeerSet::default();
        for (index, peer) in (0..).zip(peers.values()) {
            set.endpoints.push(peer.endpoint);
            set.by_endpoint.insert(peer.endpoint, index);
            for net in &peer.subnets {
                set.table.insert(*net, index);
            }
        }
        self.peers.store(Arc::new(set));
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
                    let peer = peers.table.find(destination)?;
                    last = Some((destination, peers.endpoints.get(*peer as usize)?));
                }
                last.map(|(_, to)| to)
            });
            let (Some(packet), Some(to)) = (packet, to) else {
                sending.tally.refused += 1;
                continue;
            };
            match packet {
                Packet::Whole(piece, _) => add(sending, *to, &[piece]),
                Packet::Cut(piece, cut) => {
                    cut_to(sending, *to, batch.bytes(), (piece, cut), &mut headers);
                }
            }
        }
        sending.flush(&[batch.bytes(), &headers]);
    }

    pub(super) fn inbound(&self, datagrams: &Receiver, receiving: &mut Receiving<'_>) {
        let (peers, local) = (self.peers.load(), self.local.load());
        // Of the packet before that was taken: most are followed by one of the same.
        let mut last = None;
        for message in datagrams.messages() {
            let Some(sender) = peers.by_endpoint.get(&message.from).copied() else {
                receiving.tally.refused += message.len.div_ceil(message.segment).max(1) as u64;
                continue;
            };
            self::packets(message).for_each(|(start, len)| {
                let bytes = datagrams.buffer().get(start..start + len).unwrap_or_default();
                let taken = ip::parse(bytes).filter(|ip| {
                    last == Some((sender, ip.source, ip.destination))
                        || peers.table.find(ip.source) == Some(&sender)
                            && accepts(&local, &peers.table, ip.destination)
                });
                match taken {
                    Some(ip) => {
                        last = Some((sender, ip.source, ip.destination));
                        receiving.coalescer.push(datagrams.buffer(), start, &ip);
                    }
                    None => receiving.tally.refused += 1,
                }
            });
        }
    }
}

fn add(sending: &mut Sending<'_>, to: SocketAddr, pieces: &[Piece]) {
    sending.tally.packets += 1;
    sending.tally.bytes += pieces.iter().map(|piece| u64::from(piece.len)).sum::<u64>();
    sending.outbox.add(to, pieces);
}

fn cut_to(
    sending: &mut Sending<'_>,
    to: SocketAddr,
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
