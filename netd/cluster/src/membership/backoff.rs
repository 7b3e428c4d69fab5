//! How long to wait before the next try. Pure.

use std::time::Duration;

/// Before the second try.
const FIRST: Duration = Duration::from_millis(100);
/// Between any two tries, at most.
const MOST: Duration = Duration::from_secs(15);

/// Doubles with each failure; half of the wait is random, so that nodes that failed
/// together don't come back together.
#[derive(Debug, Clone, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure; how long to wait now.
    pub(super) fn failed(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(0.5 + rng.f64() / 2.0)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `of`, a tenth more or less: nodes that started together must not renew together.
pub(super) fn jittered(of: Duration, rng: &mut fastrand::Rng) -> Duration {
    of.mul_f64(0.9 + rng.f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..100).map(|_| backoff.failed(&mut rng)).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST, "{waits:?}");
        assert!(waits.iter().all(|w| *w <= MOST), "{waits:?}");
        assert!(waits[50..].iter().all(|w| *w >= MOST / 2), "{waits:?}");
        backoff.reset();
        assert!(backoff.failed(&mut rng) <= FIRST);
    }

    #[test]
    fn about_is_a_tenth_more_or_less() {
        let mut rng = fastrand::Rng::with_seed(1);
        let hour = Duration::from_secs(3600);
        for _ in 0..1000 {
            let got = jittered(hour, &mut rng);
            assert!(got >= hour.mul_f64(0.899) && got <= hour.mul_f64(1.101), "{got:?}");
        }
    }
}
