//! What a tunnel did. Threads add up a batch and then bring it here.

use std::sync::atomic::{AtomicU64, Ordering};

use netd_api::tunnel::v1 as pb;

/// Counts of one direction, or of a batch of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets in the tunnel.
    pub packets: u64,
    /// Their bytes, IP header included.
    pub bytes: u64,
    /// Packets that were not taken.
    pub refused: u64,
    /// Packets that the system did not take.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Direction {
    packets: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

/// Of a tunnel.
#[derive(Debug, Default)]
pub struct Counters {
    received: Direction,
    sent: Direction,
}

impl Counters {
    /// Came from peers.
    pub fn received(&self, tally: Tally) {
        self.received.add(tally);
    }

    /// Went to peers.
    pub fn sent(&self, tally: Tally) {
        self.sent.add(tally);
    }

    /// As the API has it.
    pub fn message(&self) -> pb::Counters {
        let (rx, tx) = (self.received.read(), self.sent.read());
        pb::Counters {
            rx_packets: rx.packets,
            rx_bytes: rx.bytes,
            tx_packets: tx.packets,
            tx_bytes: tx.bytes,
            rx_refused: rx.refused,
            tx_refused: tx.refused,
            rx_dropped: rx.dropped,
            tx_dropped: tx.dropped,
        }
    }
}

impl Direction {
    fn add(&self, tally: Tally) {
        let pairs = [
            (&self.packets, tally.packets),
            (&self.bytes, tally.bytes),
            (&self.refused, tally.refused),
            (&self.dropped, tally.dropped),
        ];
        for (counter, more) in pairs.into_iter().filter(|(_, more)| *more > 0) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Tally {
        Tally {
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}
