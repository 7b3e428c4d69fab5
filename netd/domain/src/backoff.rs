//! Delays between attempts.

use std::time::Duration;

/// Exponential back-off: the delay doubles with each failure from `first` up to `max`, and up
/// to half of it is cut at random, so that nodes which failed together do not retry together.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off without failures so far.
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// Counts a failure and returns the delay before the next attempt. `random` as in
    /// [`Backoff::delay`].
    pub fn next_delay(&mut self, random: f64) -> Duration {
        let delay = self.delay(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        delay
    }

    /// The delay after `failures` earlier failures, for callers that count themselves. A
    /// `random` of 0.0 gives half of the delay, 1.0 all of it; values outside are clamped.
    pub fn delay(&self, failures: u32, random: f64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures));
        doubled.min(self.max).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// Forgets the failures after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(FIRST, MAX);
        let delays: Vec<_> = (0..100).map(|_| backoff.next_delay(1.0)).collect();
        assert_eq!(delays[..4], [FIRST, FIRST * 2, FIRST * 4, FIRST * 8]);
        assert!(delays[7..].iter().all(|delay| *delay == MAX), "{delays:?}");
        backoff.reset();
        assert_eq!(backoff.next_delay(1.0), FIRST);
    }

    #[test]
    fn up_to_half_of_a_delay_is_cut_at_random() {
        let backoff = Backoff::new(FIRST, MAX);
        for (random, expected) in [(-1.0, 50), (0.0, 50), (0.5, 75), (1.0, 100), (9.0, 100)] {
            assert_eq!(backoff.delay(0, random), Duration::from_millis(expected), "{random}");
        }
        assert_eq!(backoff.delay(u32::MAX, 0.0), MAX / 2);
    }
}
