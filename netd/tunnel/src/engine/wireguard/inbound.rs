//! Datagrams from any sender: handshakes, data, garbage.

use std::{net::SocketAddr, sync::Arc};

use boringtun::noise::{
    Packet, Tunn, TunnResult, handshake::parse_handshake_anon, rate_limiter::RateLimiter,
};

use super::{
    PeerSet, Wireguard,
    message::{DATA, HANDSHAKE, MAX_WAITING, OVERHEAD},
    peer::Peer,
};
use crate::{
    engine::{io::Receiving, local::accepts, outbox::Destination, udp},
    packet::{PACKETS, Piece, ecn, ip},
    sys::{Received, Receiver},
    table::Table,
};

/// Numbers of data messages from here on are never used (WireGuard, 6.1:
/// Reject-After-Messages).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// The type of a message that says "prove your address"; it authenticates no sender.
const COOKIE: u8 = 3;

/// Decrypted packets of a batch.
#[derive(Debug, Default)]
pub struct Plain {
    bytes: Vec<u8>,
    used: usize,
}

impl Plain {
    /// The arena.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Room for one more message of `len` bytes.
    fn room(&mut self, len: usize) -> (usize, &mut [u8]) {
        let (start, end) = (self.used, self.used + len.max(HANDSHAKE));
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        (start, self.bytes.get_mut(start..end).unwrap_or_default())
    }
}

/// One batch in work.
struct InboundBatch<'a, 'b> {
    own: &'a Wireguard,
    peers: &'a PeerSet,
    local: Arc<Table<()>>,
    plain: &'a mut Plain,
    receiving: &'a mut Receiving<'b>,
    /// Answers; their pieces are in the outbox.
    answers: Vec<u8>,
}

impl Wireguard {
    pub(in crate::engine) fn inbound(
        &self,
        datagrams: &mut Receiver,
        plain: &mut Plain,
        receiving: &mut Receiving<'_>,
    ) {
        plain.used = 0;
        let peers = self.peers.load();
        let local = self.local.load();
        let mut batch =
            InboundBatch { own: self, peers: &peers, local, plain, receiving, answers: vec![] };
        for message in datagrams.messages() {
            batch.message(datagrams.buffer(), message);
        }
        let InboundBatch { receiving, answers, .. } = batch;
        receiving.sending.flush(&[&answers, &[]]);
    }
}

impl InboundBatch<'_, '_> {
    fn message(&mut self, buffer: &[u8], message: &Received) {
        for (start, len) in udp::packets(message) {
            let datagram = buffer.get(start..start + len).unwrap_or_default();
            if self.datagram(datagram, message.from, message.class).is_none() {
                self.receiving.tally.refused += 1;
            }
        }
    }

    /// `None`: it was refused.
    fn datagram(&mut self, datagram: &[u8], from: SocketAddr, class: u8) -> Option<()> {
        match Tunn::parse_incoming_packet(datagram).ok()? {
            Packet::HandshakeInit(_) => self.first(datagram, from),
            Packet::HandshakeResponse(message) => {
                let peer = self.peer(message.receiver_idx)?;
                self.protocol(&peer, datagram, from)
            }
            Packet::PacketCookieReply(message) => {
                let peer = self.peer(message.receiver_idx)?;
                self.protocol(&peer, datagram, from)
            }
            Packet::PacketData(message) => {
                let number = datagram.get(8..16)?;
                let number = u64::from_le_bytes(number.try_into().ok()?);
                if number >= REJECT_AFTER_MESSAGES {
                    return None;
                }
                let peer = self.peer(message.receiver_idx);
                let taken = peer.and_then(|peer| self.data(&peer, datagram, from, class));
                if taken.is_none() {
                    self.revive(from);
                }
                taken
            }
        }
    }

    fn peer(&self, receiver: u32) -> Option<Arc<Peer>> {
        self.peers.by_index(receiver >> 8).cloned()
    }

    /// A handshake's first message says who it is from only after some work, which is
    /// done only for who knows our public key and, under load, has proved its address.
    fn first(&mut self, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let mut cookie = [0; HANDSHAKE];
        let limiter: &RateLimiter = &self.own.limiter;
        let parsed = match limiter.verify_packet(Some(from.ip()), datagram, &mut cookie) {
            Ok(Packet::HandshakeInit(message)) => message,
            Err(TunnResult::WriteToNetwork(reply)) => {
                let reply = reply.to_vec();
                self.answer(&reply, from);
                return None;
            }
            _ => return None,
        };
        let half = parse_handshake_anon(&self.own.private, &self.own.public, &parsed).ok()?;
        let peer = self.peers.by_key(&half.peer_static_public)?.clone();
        self.protocol(&peer, datagram, from)
    }

    /// A message without a packet in it.
    fn protocol(&mut self, peer: &Peer, datagram: &[u8], from: SocketAddr) -> Option<()> {
        let mut reply = [0; HANDSHAKE];
        let mut tunn = peer.lock();
        match tunn.decapsulate(Some(from.ip()), datagram, &mut reply) {
            TunnResult::WriteToNetwork(message) => {
                let authenticated = message.first() != Some(&COOKIE);
                self.answer(message, from);
                if authenticated {
                    peer.seen(from);
                    self.waiting(peer, &mut tunn, from);
                }
                Some(())
            }
            TunnResult::Done => Some(()),
            _ => None,
        }
    }

    /// Packets that waited for the session.
    fn waiting(&mut self, peer: &Peer, tunn: &mut Tunn, to: SocketAddr) {
        for _ in 0..MAX_WAITING {
            let (_, room) = self.plain.room(usize::from(u16::MAX) + OVERHEAD);
            let TunnResult::WriteToNetwork(message) = tunn.decapsulate(None, &[], room) else {
                return;
            };
            let len = message.len();
            let has_packet = message.first() == Some(&DATA);
            add(&mut self.answers, self.receiving, message, to);
            if !has_packet {
                // The session is over again: the packet waits for the next one.
                return;
            }
            peer.waited();
            self.receiving.sending.tally.packets += 1;
            self.receiving.sending.tally.bytes += len.saturating_sub(OVERHEAD) as u64;
        }
    }

    fn data(
        &mut self,
        peer: &Arc<Peer>,
        datagram: &[u8],
        from: SocketAddr,
        class: u8,
    ) -> Option<()> {
        let mut tunn = peer.lock();
        let (start, room) = self.plain.room(datagram.len());
        let packet = match tunn.decapsulate(Some(from.ip()), datagram, room) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                packet
            }
            // A keepalive. The first message of a session: what waited can go.
            TunnResult::Done => {
                peer.seen(from);
                self.waiting(peer, &mut tunn, from);
                return Some(());
            }
            _ => return None,
        };
        peer.seen(from);
        let ip = ip::parse(packet)?;
        let theirs = self.peers.table().find(ip.source).is_some_and(|p| Arc::ptr_eq(p, peer));
        if !theirs || !accepts(&self.local, self.peers.table(), ip.destination) {
            return None;
        }
        if !ecn::decapsulate(packet, class) {
            return None;
        }
        self.plain.used = start + datagram.len();
        self.receiving.coalescer.push(&self.plain.bytes, start, &ip);
        Some(())
    }

    /// The peer does not know yet that this process forgot the session.
    fn revive(&mut self, from: SocketAddr) {
        let mut message = [0; HANDSHAKE];
        let peer = self.peers.by_endpoint(&from);
        if let Some(len) = peer.and_then(|peer| peer.revive(&mut message)) {
            self.answer(message.get(..len).unwrap_or_default(), from);
        }
    }

    fn answer(&mut self, message: &[u8], to: SocketAddr) {
        add(&mut self.answers, self.receiving, message, to);
    }
}

fn add(answers: &mut Vec<u8>, receiving: &mut Receiving<'_>, message: &[u8], to: SocketAddr) {
    let piece = Piece { arena: PACKETS, start: answers.len() as u32, len: message.len() as u32 };
    answers.extend_from_slice(message);
    receiving.sending.outbox.add(Destination { to, class: 0 }, &[piece]);
}
