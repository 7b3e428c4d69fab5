//! What becomes of packets: from the device to peers and back. An engine makes no
//! threads; each thread brings its own buffers.

pub mod batch;
pub mod links;
pub mod outbox;
pub mod udp;
pub mod wireguard;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::{
    counters::{Counters, Tally},
    packet::coalesce::Coalescer,
    spec::{Kind, Peers},
    sys::{Receiver, Sender, Stop},
    table::Table,
};
use batch::Batch;
use links::Links;
use outbox::Outbox;

/// What a thread that serves a queue of the device works with.
pub struct Sending<'a> {
    /// The sockets.
    pub links: &'a Links,
    /// Which of them.
    pub queue: usize,
    /// Buffers of system calls.
    pub sender: &'a mut Sender,
    /// Datagrams on the way.
    pub outbox: &'a mut Outbox,
    /// Ends a wait.
    pub stop: &'a Stop,
    /// What was done.
    pub tally: Tally,
}

/// What a thread that serves a socket works with.
pub struct Receiving<'a> {
    /// For answers.
    pub sending: Sending<'a>,
    /// Packets for the device.
    pub coalescer: &'a mut Coalescer,
    /// What was done.
    pub tally: Tally,
}

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
    pub fn set_local(&self, local: &[IpNet]) {
        match self {
            Self::Udp(engine) => engine.local.set(local),
            Self::Wireguard(engine) => engine.local.set(local),
        }
    }

    /// Sets all peers. What is known of one that stays is kept.
    pub fn set_peers(&self, peers: &Peers) {
        match self {
            Self::Udp(engine) => engine.set_peers(peers),
            Self::Wireguard(engine) => engine.set_peers(peers),
        }
    }

    /// Sends packets from the device to peers.
    pub fn outbound(&self, batch: &mut Batch, sending: &mut Sending<'_>) {
        match self {
            Self::Udp(engine) => engine.outbound(batch, sending),
            Self::Wireguard(engine) => engine.outbound(batch, sending),
        }
    }

    /// Takes datagrams from peers. The packets lie in the arena that is returned.
    pub fn inbound<'a>(
        &self,
        datagrams: &'a Receiver,
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

/// This node's subnets.
#[derive(Debug, Default)]
pub struct Local(ArcSwap<Table<()>>);

impl Local {
    fn new(nets: &[IpNet]) -> Self {
        let local = Self::default();
        local.set(nets);
        local
    }

    fn set(&self, nets: &[IpNet]) {
        self.0.store(Arc::new(nets.iter().map(|net| (*net, ())).collect()));
    }

    /// For a batch.
    fn load(&self) -> Arc<Table<()>> {
        self.0.load_full()
    }
}

/// Whether a peer may send to `destination`: into this node's subnets, or, if they are
/// not known, to whatever is no peer's. Nobody sends to a third node through this one.
fn accepts<T>(local: &Table<()>, peers: &Table<T>, destination: IpAddr) -> bool {
    match local.is_empty() {
        true => peers.find(destination).is_none(),
        false => local.find(destination).is_some(),
    }
}

impl Sending<'_> {
    /// Sends what is in the outbox, whose pieces lie in `arenas`.
    pub fn flush(&mut self, arenas: &[&[u8]; 2]) {
        let (sender, stop) = (&mut *self.sender, self.stop);
        self.tally.dropped += self.outbox.flush(arenas, self.links, self.queue, sender, stop);
    }

    /// Brings the counts home.
    pub fn account(&mut self, counters: &Counters) {
        counters.sent(std::mem::take(&mut self.tally));
    }
}
