//! When to try again.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// Delays between attempts: doubling from 100 ms to 10 s, each cut by up to half
/// at random, so that the fronts of a rack don't redial in step.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    /// The next delay.
    pub(super) fn next(&mut self) -> Duration {
        let full = Self::FIRST.saturating_mul(1 << self.attempts.min(10)).min(Self::LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        // Seeded anew by the system for each state.
        let random = RandomState::new().build_hasher().finish();
        full / 2 + (full / 2).mul_f64((random % 1024) as f64 / 1023.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_are_capped_and_differ() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(delays[0] >= Backoff::FIRST / 2 && delays[0] <= Backoff::FIRST);
        assert!(delays.iter().all(|d| *d <= Backoff::LONGEST));
        assert!(delays[10..].iter().all(|d| *d >= Backoff::LONGEST / 2));
        assert!(delays[10..].iter().any(|d| *d != delays[10]), "{delays:?}");
    }
}
