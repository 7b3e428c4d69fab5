//! When something may be tried or written again. Pure.

use std::time::{Duration, Instant};

use netd_domain::Backoff;

/// Between attempts at the API, the disk.
pub(crate) const RETRY: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
/// After so long without an attempt the next one is made at once again.
const QUIET: Duration = Duration::from_secs(60);

/// Attempts that follow each other more and more slowly.
#[derive(Debug)]
pub(crate) struct Pace {
    backoff: Backoff,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new(first: Duration, longest: Duration) -> Self {
        Self { backoff: Backoff::new(first, longest), last: None, next: None }
    }

    /// An attempt was made. `random`: from 0 to 1.
    pub(crate) fn attempted(&mut self, now: Instant, random: f64) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > QUIET) {
            self.backoff.reset();
        }
        self.last = Some(now);
        self.next = Some(now + self.backoff.next_delay(random));
    }

    /// The next one may be made at once.
    pub(crate) fn reset(&mut self) {
        self.backoff.reset();
        self.next = None;
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// When the next one may be made; `None`: now.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.next
    }
}
