//! The threads of a tunnel: one a queue of the device, one a socket, one for time.

use std::{
    io::{self, ErrorKind, IoSlice},
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::Shared;
use crate::{
    counters::Tally,
    engine::{Receiving, Sending, batch::Batch, links::Links, outbox::Outbox, wireguard::Plain},
    packet::coalesce::Coalescer,
    sys::{Receiver, Sender, Stop, Stopper, Tun, Wake, wait},
};

/// Messages a call; each can be 64 KiB.
const MESSAGES: usize = 16;
/// Milliseconds between looks at the timers.
const TICK: u16 = 250;
/// Milliseconds of rest after an error that is not about one packet.
const REST: u16 = 50;

/// Threads that end, and are waited for, when this is dropped.
#[derive(Debug)]
pub struct Threads {
    stopper: Option<Stopper>,
    stop: Stop,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// None yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new() -> io::Result<Self> {
        let (stopper, stop) = Stopper::new()?;
        Ok(Self { stopper: Some(stopper), stop, handles: vec![] })
    }

    fn spawn(&mut self, name: String, body: impl FnOnce(Stop) + Send + 'static) -> io::Result<()> {
        let stop = self.stop.clone();
        self.handles.push(thread::Builder::new().name(name).spawn(move || body(stop))?);
        Ok(())
    }

    /// Serves a queue of the device.
    ///
    /// # Errors
    /// The system's.
    pub fn send(&mut self, shared: &Arc<Shared>, queue: usize) -> io::Result<()> {
        let shared = shared.clone();
        self.spawn(format!("tunnel-tx-{queue}"), move |stop| send(&shared, queue, &stop))
    }

    /// Serves a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn receive(
        &mut self,
        shared: &Arc<Shared>,
        queue: usize,
        socket: Arc<OwnedFd>,
    ) -> io::Result<()> {
        let shared = shared.clone();
        let body = move |stop: Stop| receive(&shared, queue, &socket, &stop);
        self.spawn(format!("tunnel-rx-{queue}"), body)
    }

    /// Looks at the timers.
    ///
    /// # Errors
    /// The system's.
    pub fn tick(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let shared = shared.clone();
        self.spawn("tunnel-timers".into(), move |stop| tick(&shared, &stop))
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.stopper.take());
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a tunnel's thread panicked");
            }
        }
    }
}

/// Buffers of what sends.
#[derive(Default)]
struct Gear {
    sender: Sender,
    outbox: Outbox,
}

impl Gear {
    fn sending<'a>(&'a mut self, links: &'a Links, queue: usize, stop: &'a Stop) -> Sending<'a> {
        let (sender, outbox) = (&mut self.sender, &mut self.outbox);
        Sending { links, queue, sender, outbox, stop, tally: Tally::default() }
    }
}

fn send(shared: &Shared, queue: usize, stop: &Stop) {
    let (mut batch, mut gear) = (Batch::default(), Gear::default());
    let Some(tun) = shared.queues.get(queue) else { return };
    loop {
        let more = match batch.read(tun) {
            Ok(more) => more,
            // The device was removed; netd asks for another.
            Err(e) if e.raw_os_error() == Some(libc::EBADFD) => {
                tracing::warn!(device = shared.device, "the tun device is gone");
                return;
            }
            // Down: reads fail until it is up.
            Err(_) => {
                if wait(None, false, stop, Some(REST)) == Wake::Stop {
                    return;
                }
                continue;
            }
        };
        if !batch.is_empty() {
            let links = shared.links.load();
            let mut sending = gear.sending(&links, queue, stop);
            shared.engine.outbound(&mut batch, &mut sending);
            sending.account(&shared.counters);
        }
        if stop.is_set() || (!more && wait(Some(tun.as_fd()), false, stop, None) == Wake::Stop) {
            return;
        }
    }
}

fn receive(shared: &Shared, queue: usize, socket: &OwnedFd, stop: &Stop) {
    let (mut datagrams, mut gear) = (Receiver::new(MESSAGES), Gear::default());
    let mut coalescer = Coalescer::new(shared.queues.iter().all(Tun::takes_udp));
    let mut plain = Plain::default();
    loop {
        let wake = match datagrams.receive(socket.as_fd()) {
            Ok(()) => {
                let links = shared.links.load();
                let sending = gear.sending(&links, queue, stop);
                let mut receiving =
                    Receiving { sending, coalescer: &mut coalescer, tally: Tally::default() };
                let packets = shared.engine.inbound(&datagrams, &mut plain, &mut receiving);
                let Receiving { mut sending, mut tally, coalescer } = receiving;
                deliver(coalescer, packets, &shared.queues, &mut tally);
                shared.counters.received(tally);
                sending.account(&shared.counters);
                Wake::Ready
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                wait(Some(socket.as_fd()), false, stop, None)
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Wake::Ready,
            Err(_) => wait(None, false, stop, Some(REST)),
        };
        if wake == Wake::Stop || stop.is_set() {
            return;
        }
    }
}

/// Writes a batch to the device. All of a flow goes to one queue: the kernel sends what
/// it answers out on that one, so flows are spread over the queues.
fn deliver(coalescer: &mut Coalescer, packets: &[u8], queues: &[Tun], tally: &mut Tally) {
    coalescer.finish(packets);
    let arenas = [packets, coalescer.headers()];
    let mut parts = vec![];
    for (flow, count, bytes, pieces) in coalescer.writes() {
        parts.clear();
        parts.extend(pieces.iter().map(|piece| IoSlice::new(piece.of(&arenas))));
        let queue = flow.checked_rem(queues.len() as u64).unwrap_or(0) as usize;
        match queues.get(queue).map(|queue| queue.write(&parts)) {
            Some(Ok(())) => {
                tally.packets += count as u64;
                tally.bytes += bytes as u64;
            }
            _ => tally.dropped += count as u64,
        }
    }
    coalescer.clear();
}

fn tick(shared: &Shared, stop: &Stop) {
    let mut gear = Gear::default();
    while wait(None, false, stop, Some(TICK)) != Wake::Stop {
        let links = shared.links.load();
        let mut sending = gear.sending(&links, 0, stop);
        let needed = shared.engine.tick(&mut sending);
        sending.account(&shared.counters);
        if !needed {
            return;
        }
    }
}
