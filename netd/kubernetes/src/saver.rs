//! Writes the known Nodes to disk in the background, at most every few seconds.

use std::{path::PathBuf, time::Duration};

use tokio::{task::JoinHandle, time::Instant};

use crate::{peers_file, reconciler::Reconciler};

/// From a change of the known Nodes to its being written, and between two writes.
const SAVE_DELAY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Saver {
    state_dir: PathBuf,
    /// What was written, by the changes of the known Nodes.
    written: u64,
    due: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl Saver {
    pub(crate) fn new(state_dir: PathBuf, reconciler: &Reconciler) -> Self {
        Self { state_dir, written: reconciler.peers.changes, due: None, writing: None }
    }

    /// When [`Self::tick`] has something to do.
    pub(crate) fn wake_at(&mut self, reconciler: &Reconciler) -> Option<Instant> {
        if self.due.is_none() && self.written != reconciler.peers.changes {
            self.due = Some(Instant::now() + SAVE_DELAY);
        }
        self.due
    }

    /// Begins to write if it is time to.
    pub(crate) fn tick(&mut self, reconciler: &Reconciler) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.due = Some(Instant::now() + SAVE_DELAY);
            return;
        }
        self.begin(reconciler);
    }

    fn begin(&mut self, reconciler: &Reconciler) {
        self.due = None;
        self.written = reconciler.peers.changes;
        let (known, dir) = (reconciler.peers.known().clone(), self.state_dir.clone());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(err) = peers_file::save(&dir, &known) {
                let dir = dir.display();
                tracing::warn!("{dir}: {err}; a start without the API will know older Nodes");
            }
        }));
    }

    /// Writes what is not written yet.
    pub(crate) async fn finish(&mut self, reconciler: &Reconciler) {
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
