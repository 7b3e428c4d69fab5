//! Writes what is known of the others to disk, now and then, beside the loop.

use std::{path::PathBuf, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{core::Core, files::PeersFile, status};

/// From a change to its being written, and between two writes: a file of 10,000 peers
/// has some megabytes.
const DELAY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(super) struct PeersSaver {
    state_dir: PathBuf,
    /// What was written, by [`super::diff::Peers::changes`].
    written: u64,
    due: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl PeersSaver {
    pub(super) fn new(state_dir: PathBuf, core: &Core) -> Self {
        Self { state_dir, written: core.peers.changes, due: None, writing: None }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn wake_at(&mut self, core: &Core) -> Option<Instant> {
        if self.due.is_none() && self.written != core.peers.changes {
            self.due = Some(Instant::now() + DELAY);
        }
        self.due
    }

    /// Begins to write if it is time to.
    pub(super) fn tick(&mut self, core: &Core) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.due = Some(Instant::now() + DELAY);
            return;
        }
        self.begin(core);
    }

    fn begin(&mut self, core: &Core) {
        self.due = None;
        self.written = core.peers.changes;
        let peers = core.peers.known().clone();
        let file = PeersFile { peers, owners: status::owners(core) };
        let dir = self.state_dir.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(err) = file.write(&dir) {
                let dir = dir.display();
                tracing::warn!("{dir}: {err}; a start without the store will know older peers");
            }
        }));
    }

    /// Writes what is not written yet.
    pub(super) async fn finish(mut self, core: &Core) {
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
        if self.written != core.peers.changes {
            self.begin(core);
        }
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
    }
}
