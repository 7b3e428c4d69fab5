//! One thread's work: a queue of the device and the sockets that belong to it.
//!
//! Both ways are one thread's because what is written to the device often has an answer
//! (a TCP acknowledgement, or what one lets go), which the kernel puts into the queue
//! before the write returns: it is sent on at once, and no other thread is woken for it.

use std::{
    io::{ErrorKind, IoSlice},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use super::shared::Shared;
use crate::{
    counters::Tally,
    engine::{
        Receiving, Sending, batch::PacketBatch, links::Links, outbox::Outbox, wireguard::Plain,
    },
    packet::coalesce::Coalescer,
    sys::{Receiver, Sender, Stop, Tun, Wake, wait, wait_any},
};

/// Messages a call; each can be 64 KiB.
const MESSAGES: usize = 16;
/// Milliseconds of rest after an error that is not about one packet.
const REST: u16 = 50;

/// Buffers of what sends.
#[derive(Default)]
pub(super) struct Gear {
    sender: Sender,
    outbox: Outbox,
}

impl Gear {
    /// For one batch.
    pub(super) fn sending<'a>(
        &'a mut self,
        links: &'a Links,
        queue: usize,
        stop: &'a Stop,
    ) -> Sending<'a> {
        let (sender, outbox) = (&mut self.sender, &mut self.outbox);
        Sending { links, queue, sender, outbox, stop, tally: Tally::default() }
    }
}

/// What a thread works with.
pub(super) struct QueueWorker<'a> {
    shared: &'a Shared,
    queue: usize,
    stop: &'a Stop,
    links: Arc<Links>,
    batch: PacketBatch,
    gear: Gear,
    datagrams: Receiver,
    coalescer: Coalescer,
    plain: Plain,
}

/// How a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TurnResult {
    /// There may be more.
    More,
    /// Nothing is left for now.
    Done,
    /// It failed, as it will if it is tried at once again.
    Failed,
    /// The device was removed.
    Gone,
}

impl<'a> QueueWorker<'a> {
    /// With the sockets that there are now.
    pub(super) fn new(shared: &'a Shared, queue: usize, stop: &'a Stop) -> Self {
        Self {
            shared,
            queue,
            stop,
            links: shared.links.load_full(),
            batch: PacketBatch::default(),
            gear: Gear::default(),
            datagrams: Receiver::new(MESSAGES),
            coalescer: Coalescer::new(shared.queues.iter().all(Tun::takes_udp)),
            plain: Plain::default(),
        }
    }

    /// Moves packets until it is told to stop, or the device is gone.
    pub(super) fn serve(mut self) {
        let Some(tun) = self.shared.queues.get(self.queue) else { return };
        let links = self.links.clone();
        let mut fds = vec![tun.as_fd()];
        fds.extend(links.sockets(self.queue));
        let mut ready = vec![true; fds.len()];
        while !self.stop.is_set() {
            match self.turn(tun, &fds, &mut ready) {
                TurnResult::Done => {
                    if wait_any(&fds, &mut ready, self.stop) == Wake::Stop {
                        return;
                    }
                    continue;
                }
                TurnResult::More => {}
                // A device that is down: reads fail until it is up.
                TurnResult::Failed => {
                    wait(None, false, self.stop, Some(REST));
                }
                // netd asks for another.
                TurnResult::Gone => {
                    tracing::warn!(device = self.shared.device, "the tun device is gone");
                    return;
                }
            }
            // Nobody waits for one that always has more.
            ready.fill(true);
        }
    }

    /// A batch of each that is ready, the device last.
    fn turn(&mut self, tun: &Tun, fds: &[BorrowedFd<'_>], ready: &mut [bool]) -> TurnResult {
        let mut whole = TurnResult::Done;
        let Some((device_ready, sockets_ready)) = ready.split_first_mut() else { return whole };
        for (socket, ready) in fds.iter().skip(1).zip(sockets_ready) {
            if *ready {
                let step = self.receive(*socket);
                *ready = step != TurnResult::Done;
                *device_ready = true;
                whole = worst(whole, step);
            }
        }
        if *device_ready {
            let step = self.send(tun);
            *device_ready = step != TurnResult::Done;
            whole = worst(whole, step);
        }
        whole
    }

    /// From the device to peers.
    fn send(&mut self, tun: &Tun) -> TurnResult {
        let more = match self.batch.read(tun) {
            Ok(more) => more,
            Err(e) if e.raw_os_error() == Some(libc::EBADFD) => return TurnResult::Gone,
            Err(_) => return TurnResult::Failed,
        };
        if !self.batch.is_empty() {
            let mut sending = self.gear.sending(&self.links, self.queue, self.stop);
            self.shared.engine.outbound(&mut self.batch, &mut sending);
            sending.account(&self.shared.counters);
        }
        if more { TurnResult::More } else { TurnResult::Done }
    }

    /// From peers to the device.
    fn receive(&mut self, socket: BorrowedFd<'_>) -> TurnResult {
        let more = match self.datagrams.receive(socket) {
            Ok(more) => more,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return TurnResult::Done,
            Err(e) if e.kind() == ErrorKind::Interrupted => return TurnResult::More,
            Err(_) => return TurnResult::Failed,
        };
        let shared = self.shared;
        let sending = self.gear.sending(&self.links, self.queue, self.stop);
        let coalescer = &mut self.coalescer;
        let mut receiving = Receiving { sending, coalescer, tally: Tally::default() };
        let packets = shared.engine.inbound(&mut self.datagrams, &mut self.plain, &mut receiving);
        let Receiving { mut sending, mut tally, coalescer } = receiving;
        if let Some(tun) = shared.queues.get(self.queue) {
            deliver(coalescer, packets, tun, &mut tally);
        }
        shared.counters.received(tally);
        sending.account(&shared.counters);
        if more { TurnResult::More } else { TurnResult::Done }
    }
}

fn worst(a: TurnResult, b: TurnResult) -> TurnResult {
    let order = [TurnResult::Gone, TurnResult::Failed, TurnResult::More];
    order.into_iter().find(|step| [a, b].contains(step)).unwrap_or(TurnResult::Done)
}

/// Writes a batch to the device, by this thread's queue: the kernel puts what it answers
/// into the same one.
fn deliver(coalescer: &mut Coalescer, packets: &[u8], tun: &Tun, tally: &mut Tally) {
    coalescer.finish(packets);
    let arenas = [packets, coalescer.headers()];
    let mut parts = vec![];
    for (count, bytes, pieces) in coalescer.writes() {
        parts.clear();
        parts.extend(pieces.iter().map(|piece| IoSlice::new(piece.of(&arenas))));
        match tun.write(&parts) {
            Ok(()) => {
                tally.packets += count as u64;
                tally.bytes += bytes as u64;
            }
            Err(_) => tally.dropped += count as u64,
        }
    }
    coalescer.clear();
}
