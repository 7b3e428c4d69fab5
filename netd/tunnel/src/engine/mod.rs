//! What becomes of packets: from the device to peers and back. An engine makes no
//! threads; each thread brings its own buffers.

pub mod batch;
mod io;
pub mod links;
mod local;
pub mod outbox;
mod replicas;
pub mod udp;
pub mod wireguard;

use ipnet::IpNet;

use crate::{peers::PeerChange, spec::Kind, sys::Receiver};
use batch::PacketBatch;
pub use io::{Receiving, Sending};

/// The backends.
#[derive(Debug)]
pub enum Engine {
    /// One packet a datagram.
    Udp(udp::Udp),
    /// WireGuard.
    Wireguard(wireguard::Wireguard),
}

impl Engine {
    /// Without peers.
    pub fn new(kind: &Kind, local: &[IpNet]) -> Self {
        match kind {
            Kind::Udp => Self::Udp(udp::Udp::new(local)),
            Kind::Wireguard(key) => Self::Wireguard(wireguard::Wireguard::new(key, local)),
        }
    }

    /// Sets this node's subnets.
    pub(crate) fn set_local(&self, local: &[IpNet]) {
        match self {
            Self::Udp(engine) => engine.local.set(local),
            Self::Wireguard(engine) => engine.local.set(local),
        }
    }

    /// Changes peers. What is known of one that stays is kept.
    pub(crate) fn change_peers(&self, changes: &[PeerChange]) {
        match self {
            Self::Udp(engine) => engine.change_peers(changes),
            Self::Wireguard(engine) => engine.change_peers(changes),
        }
    }

    /// Sends packets from the device to peers.
    pub fn outbound(&self, batch: &mut PacketBatch, sending: &mut Sending<'_>) {
        match self {
            Self::Udp(engine) => engine.outbound(batch, sending),
            Self::Wireguard(engine) => engine.outbound(batch, sending),
        }
    }

    /// Takes datagrams from peers. The packets lie in the arena that is returned.
    pub fn inbound<'a>(
        &self,
        datagrams: &'a mut Receiver,
        plain: &'a mut wireguard::Plain,
        receiving: &mut Receiving<'_>,
    ) -> &'a [u8] {
        match self {
            Self::Udp(engine) => {
                engine.inbound(datagrams, receiving);
                datagrams.buffer()
            }
            Self::Wireguard(engine) => {
                engine.inbound(datagrams, plain, receiving);
                plain.bytes()
            }
        }
    }

    /// Does what is due by time; returns whether there ever is anything.
    pub fn tick(&self, sending: &mut Sending<'_>) -> bool {
        match self {
            Self::Udp(_) => false,
            Self::Wireguard(engine) => {
                engine.tick(sending);
                true
            }
        }
    }

    /// How many peers have a session in force.
    pub fn sessions(&self) -> usize {
        match self {
            Self::Udp(_) => 0,
            Self::Wireguard(engine) => engine.sessions(),
        }
    }
}
