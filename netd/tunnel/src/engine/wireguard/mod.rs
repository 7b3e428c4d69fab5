//! WireGuard: boringtun's protocol, our packets and system calls.
//!
//! A peer's [`boringtun::noise::Tunn`] is under a lock of its own; which peer a packet
//! is of is looked up without one.

mod inbound;
mod message;
mod peer;
mod peer_set;

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
};

use boringtun::{
    noise::{TunnResult, rate_limiter::RateLimiter},
    x25519::{PublicKey, StaticSecret},
};
use ipnet::IpNet;

use super::{
    batch::{Packet, PacketBatch},
    io::Sending,
    local::Local,
    outbox::Destination,
    replicas::Replicas,
};
use crate::{
    packet::{PACKETS, Piece},
    peers::PeerChange,
    spec::{PeerName, Secret},
};
pub use inbound::Plain;
use message::{DATA, HANDSHAKE, OVERHEAD};
use peer::Peer;
use peer_set::{PeerSet, SetChange};

/// Handshakes a second before senders have to prove their address with a cookie. Each
/// first message is counted twice: before its peer is known, and with its peer.
const HANDSHAKES: u64 = 200;
/// The backend.
pub struct Wireguard {
    pub(super) local: Local,
    private: StaticSecret,
    public: PublicKey,
    limiter: Arc<RateLimiter>,
    peers: Replicas<PeerSet, Vec<SetChange>>,
}

impl std::fmt::Debug for Wireguard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wireguard").finish_non_exhaustive()
    }
}

impl Wireguard {
    pub(super) fn new(key: &Secret, local: &[IpNet]) -> Self {
        let private = StaticSecret::from(key.0);
        let public = PublicKey::from(&private);
        Self {
            local: Local::new(local),
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES)),
            private,
            public,
            peers: Replicas::default(),
        }
    }

    pub(super) fn change_peers(&self, changes: &[PeerChange]) {
        let current = self.peers.load();
        let mut indices = HashSet::new();
        // Not the ones of this process's last run: what is sent to a session of that
        // must not look like another peer's.
        let mut next = RandomState::new().build_hasher().finish() as u32;
        let mut all = vec![];
        for change in changes {
            let PeerName::Key(key) = &change.name else { continue };
            let old = current.by_key(key).cloned();
            let new = change.new.as_ref().map(|spec| {
                let kept = old.clone().filter(|peer| peer.is_like(spec));
                let peer = kept.unwrap_or_else(|| {
                    let is_taken = |i| current.by_index(i).is_some() || indices.contains(&i);
                    let index = free_index(&mut next, is_taken);
                    indices.insert(index);
                    Arc::new(Peer::new(&self.private, &self.limiter, *key, index, spec))
                });
                peer.configured(spec.endpoint);
                (peer, spec.clone())
            });
            all.push(SetChange { key: *key, old: old.zip(change.old.clone()), new });
        }
        drop(current);
        self.peers.change(all, |peers, changes| peers.apply(changes));
    }

    /// Packets are taken in groups of one peer, so that each group is encrypted and sent
    /// in one go and in order: receivers forget numbers that come 1,000 packets late.
    pub(super) fn outbound(&self, batch: &mut PacketBatch, sending: &mut Sending<'_>) {
        let peers = self.peers.load();
        let mut groups: Vec<(&Arc<Peer>, Vec<Packet>)> = vec![];
        for index in 0..batch.len() {
            let packet = batch.packet(index);
            let peer = packet.and_then(|p| peers.table().find(p.ip().destination));
            let (Some(packet), Some(peer)) = (packet, peer) else {
                sending.tally.refused += 1;
                continue;
            };
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, peer)) {
                Some((_, packets)) => packets.push(packet),
                None => groups.push((peer, vec![packet])),
            }
        }
        let mut sealed = Sealed::default();
        for (peer, packets) in groups {
            let _in_order = peer.order.lock();
            for packet in packets {
                sealed.packet(peer, batch.bytes(), packet, sending);
                if sealed.bytes.len() > MAX_SEALED {
                    sealed.flush(sending);
                }
            }
            sealed.flush(sending);
        }
    }

    /// Handshakes that are due, keepalives.
    pub(super) fn tick(&self, sending: &mut Sending<'_>) {
        self.limiter.reset_count();
        let mut message = [0; HANDSHAKE];
        for peer in self.peers.load().all() {
            let due = peer.tick(&mut message, &mut sending.tally.dropped);
            if let Some(len) = due {
                let piece = Piece { arena: PACKETS, start: 0, len: len as u32 };
                sending.outbox.add(Destination { to: peer.endpoint(), class: 0 }, &[piece]);
                sending.flush(&[&message, &[]]);
            }
        }
    }

    pub(super) fn sessions(&self) -> usize {
        self.peers.load().all().filter(|peer| peer.has_session()).count()
    }
}

/// Of 24 bits: boringtun numbers a peer's sessions with the other 8.
fn free_index(next: &mut u32, taken: impl Fn(u32) -> bool) -> u32 {
    loop {
        *next = next.wrapping_add(1) & 0x00ff_ffff;
        if !taken(*next) {
            return *next;
        }
    }
}

/// Bytes after which what is encrypted is sent.
const MAX_SEALED: usize = 256 << 10;

/// Encrypted messages of a group.
#[derive(Default)]
struct Sealed {
    bytes: Vec<u8>,
    plain: Vec<u8>,
}

impl Sealed {
    fn packet(&mut self, peer: &Peer, bytes: &[u8], packet: Packet, sending: &mut Sending<'_>) {
        let to = Destination { to: peer.endpoint(), class: packet.ip().class };
        let mut tunn = peer.lock();
        let mut plain = std::mem::take(&mut self.plain);
        match packet {
            Packet::Whole(piece, _) => {
                let packet = piece.of(&[bytes, &[]]);
                self.seal((peer, &mut tunn), packet, to, sending);
            }
            Packet::Cut(piece, cut) => {
                let whole = piece.of(&[bytes, &[]]);
                for index in 0..cut.count() {
                    plain.clear();
                    plain.resize(cut.header(), 0);
                    let Some(payload) = cut.segment(whole, index, &mut plain) else { break };
                    plain.extend_from_slice(whole.get(payload).unwrap_or_default());
                    self.seal((peer, &mut tunn), &plain, to, sending);
                }
            }
        }
        self.plain = plain;
    }

    fn seal(
        &mut self,
        (peer, tunn): (&Peer, &mut boringtun::noise::Tunn),
        packet: &[u8],
        to: Destination,
        sending: &mut Sending<'_>,
    ) {
        let start = self.bytes.len();
        self.bytes.resize(start + (packet.len() + OVERHEAD).max(HANDSHAKE), 0);
        let room = self.bytes.get_mut(start..).unwrap_or_default();
        let (len, has_packet) = match tunn.encapsulate(packet, room) {
            TunnResult::WriteToNetwork(message) => (message.len(), message.first() == Some(&DATA)),
            // A handshake is under way.
            TunnResult::Done => (0, false),
            _ => {
                sending.tally.refused += 1;
                self.bytes.truncate(start);
                return;
            }
        };
        self.bytes.truncate(start + len);
        if has_packet {
            sending.tally.packets += 1;
            sending.tally.bytes += packet.len() as u64;
        } else if !peer.wait() {
            // Kept until there is a session, as far as there is room.
            sending.tally.dropped += 1;
        }
        if len > 0 {
            let piece = Piece { arena: PACKETS, start: start as u32, len: len as u32 };
            // A handshake is not of the packet's class.
            let class = if has_packet { to.class } else { 0 };
            sending.outbox.add(Destination { class, ..to }, &[piece]);
        }
    }

    fn flush(&mut self, sending: &mut Sending<'_>) {
        sending.flush(&[&self.bytes, &[]]);
        self.bytes.clear();
    }
}
