//! Durations and what is said of them.

use std::time::Duration;

/// Durations of single calls, and how long all of them took together.
#[derive(Debug, Default)]
pub(crate) struct Times {
    each: Vec<Duration>,
    all: Duration,
}

impl Times {
    pub(crate) fn new(mut each: Vec<Duration>, all: Duration) -> Self {
        each.sort_unstable();
        Self { each, all }
    }

    /// Adds what was measured later, under the same conditions.
    pub(crate) fn extend(&mut self, more: Self) {
        self.each.extend(more.each);
        self.each.sort_unstable();
        self.all += more.all;
    }

    /// Milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let index = (self.each.len() * percent / 100).min(self.each.len().saturating_sub(1));
        self.each.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }

    /// Calls a second.
    #[allow(clippy::cast_precision_loss)] // a few hundred
    pub(crate) fn rate(&self) -> f64 {
        self.each.len() as f64 / self.all.as_secs_f64()
    }
}
