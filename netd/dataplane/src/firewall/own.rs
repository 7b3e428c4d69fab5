//! Tells netd's own changes of the tables from those of other programs.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// How long the events of an `nft` that ended may take to be read. The kernel reuses process
/// ids, but hardly for another `nft` within that time.
const RECENT: Duration = Duration::from_secs(10);

/// Netlink ports of our socket and of the `nft` processes that we ran recently (a
/// process's first netlink socket has its process id as port). Clones share their content.
#[derive(Debug, Clone)]
pub(crate) struct OwnChanges {
    socket: u32,
    processes: Arc<Mutex<VecDeque<(u32, Instant)>>>,
}

impl OwnChanges {
    pub(super) fn new(socket: u32) -> Self {
        Self { socket, processes: Arc::default() }
    }

    /// Notes a child process that is about to change netd's tables.
    pub(super) fn add_process(&self, id: u32) {
        let mut processes = self.processes.lock();
        processes.retain(|(_, since)| since.elapsed() < RECENT);
        processes.push_back((id, Instant::now()));
    }

    /// Whether netd or one of its `nft` processes caused an event with this port.
    pub(crate) fn contains(&self, port: u32) -> bool {
        port == self.socket
            || self.processes.lock().iter().any(|(p, since)| *p == port && since.elapsed() < RECENT)
    }
}
