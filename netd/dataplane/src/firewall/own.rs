//! Tells netd's own changes of the tables from those of other programs.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long the events of an ended `nft` may take to be read. Process ids are used
/// again, but hardly by another `nft` within that time.
const RECENT: Duration = Duration::from_secs(10);

/// Netlink ports of our socket and of the `nft` processes that we ran recently (a
/// process's first netlink socket has its process id as port). Clones share their content.
#[derive(Debug, Clone)]
pub struct OwnChanges {
    socket: u32,
    processes: Arc<Mutex<VecDeque<(u32, Instant)>>>,
}

impl OwnChanges {
    pub(super) fn new(socket: u32) -> Self {
        Self { socket, processes: Arc::default() }
    }

    /// A child of ours that is about to change our tables.
    pub(super) fn add_process(&self, id: u32) {
        let mut processes = self.processes.lock();
        processes.retain(|(_, since)| since.elapsed() < RECENT);
        processes.push_back((id, Instant::now()));
    }

    /// Whether the message's originator is one of ours.
    pub fn contains(&self, port: u32) -> bool {
        port == self.socket
            || self.processes.lock().iter().any(|(p, since)| *p == port && since.elapsed() < RECENT)
    }
}
