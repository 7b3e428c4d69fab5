//! When the membership tries again, and when it renews.

use std::time::Duration;

use netd_domain::Backoff;

/// Between attempts at the store.
pub(super) const STORE_BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(15));

/// `interval`, a tenth more or less, so that nodes which started together do not renew
/// together.
pub(super) fn jittered(interval: Duration, rng: &mut fastrand::Rng) -> Duration {
    interval.mul_f64(0.9 + rng.f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jittered_interval_is_a_tenth_more_or_less() {
        let mut rng = fastrand::Rng::with_seed(1);
        let hour = Duration::from_secs(3600);
        for _ in 0..1000 {
            let got = jittered(hour, &mut rng);
            assert!(got >= hour.mul_f64(0.899) && got <= hour.mul_f64(1.101), "{got:?}");
        }
    }
}
