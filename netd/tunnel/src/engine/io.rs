//! What a thread brings along: sockets, buffers, counts.

use super::{links::Links, outbox::Outbox};
use crate::{
    counters::{Counters, Tally},
    packet::coalesce::Coalescer,
    sys::{Sender, Stop},
};

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

impl Sending<'_> {
    /// Sends what is in the outbox, whose pieces lie in `arenas`.
    pub fn flush(&mut self, arenas: &[&[u8]; 2]) {
        let (sender, stop) = (&mut *self.sender, self.stop);
        self.tally.dropped += self.outbox.flush(arenas, self.links, self.queue, sender, stop);
    }

    /// Brings the counts home.
    pub(crate) fn account(&mut self, counters: &Counters) {
        counters.sent(std::mem::take(&mut self.tally));
    }
}
