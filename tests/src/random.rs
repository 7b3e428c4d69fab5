//! Moments and choices that differ from run to run, and the seed that repeats them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A generator that threads share (xorshift: good enough to pick moments).
#[derive(Debug)]
pub struct Random(AtomicU64);

impl Random {
    /// Seeded with the time; says with what.
    pub fn new() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = u64::try_from(now.as_nanos()).unwrap_or_default() | 1;
        println!("seed {seed}");
        Self(AtomicU64::new(seed))
    }

    /// A number below `end`, which is not 0.
    pub fn below(&self, end: u64) -> u64 {
        let mut x = self.0.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Ordering::Relaxed);
        x % end
    }

    /// True once in `times`.
    pub fn once_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Less than `most` milliseconds.
    pub fn moment(&self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}
