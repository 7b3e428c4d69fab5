//! Writes what is known of the others to disk in the background, at most every few seconds.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

/// From a change to its being written, and between two writes: a file of 10,000 peers
/// has some megabytes.
const DELAY: Duration = Duration::from_secs(5);

/// See the module. What is to be written is told apart by [`super::diff::Peers::changes`].
#[derive(Debug)]
pub struct PeersSaver {
    written: u64,
    due: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl PeersSaver {
    /// What is on disk already.
    pub fn new(written: u64) -> Self {
        Self { written, due: None, writing: None }
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake_at(&mut self, changes: u64) -> Option<Instant> {
        if self.due.is_none() && self.written != changes {
            self.due = Some(Instant::now() + DELAY);
        }
        self.due
    }

    /// Begins to write if it is time to. `job` makes the work, which may block.
    pub fn tick<W: FnOnce() + Send + 'static>(&mut self, changes: u64, job: impl FnOnce() -> W) {
        if self.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
            self.due = Some(Instant::now() + DELAY);
            return;
        }
        self.begin(changes, job());
    }

    fn begin(&mut self, changes: u64, work: impl FnOnce() + Send + 'static) {
        self.due = None;
        self.written = changes;
        self.writing = Some(tokio::task::spawn_blocking(work));
    }

    /// Writes what is not written yet.
    pub async fn finish<W: FnOnce() + Send + 'static>(
        mut self,
        changes: u64,
        job: impl FnOnce() -> W,
    ) {
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
        if self.written != changes {
            self.begin(changes, job());
        }
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
    }
}
