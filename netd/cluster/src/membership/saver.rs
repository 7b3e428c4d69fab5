//! Writes the known peers to disk in the background, at most every few seconds.

use std::{path::PathBuf, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use super::{files::PeersFile, reconciler::Reconciler, status};

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
    pub(super) fn new(state_dir: PathBuf, reconciler: &Reconciler) -> Self {
        Self { state_dir, written: reconciler.peers.changes, due: None, writing: None }
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn wake_at(&mut self, reconciler: &Reconciler) -> Option<Instant> {
        if self.due.is_none() && self.written != reconciler.peers.changes {
            self.due = Some(Instant::now() + DELAY);
        }
        self.due
    }

    /// Begins to write if it is time to.
    pub(super) fn tick(&mut self, reconciler: &Reconciler) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.due = Some(Instant::now() + DELAY);
            return;
        }
        self.begin(reconciler);
    }

    fn begin(&mut self, reconciler: &Reconciler) {
        self.due = None;
        self.written = reconciler.peers.changes;
        let peers = reconciler.peers.known().clone();
        let file = PeersFile { peers, owners: status::owners(reconciler) };
        let dir = self.state_dir.clone();
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(err) = file.write(&dir) {
                let dir = dir.display();
                tracing::warn!("{dir}: {err}; a start without the store will know older peers");
            }
        }));
    }

    /// Writes what is not written yet.
    pub(super) async fn finish(mut self, reconciler: &Reconciler) {
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
        if self.written != reconciler.peers.changes {
            self.begin(reconciler);
        }
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
    }
}
