//! The clocks: one that orders attaches and detaches, one that measures.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`: netd compares them with those of other calls, so
/// the clock must be the same for every process and never step.
pub fn boottime_ns() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A moment by which something has to be done.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// `time` from now; at most a year.
    pub fn after(time: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        Self(Instant::now() + time.min(YEAR))
    }

    /// What is left; `None` when it is over.
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let first = boottime_ns();
        assert!(first > 0 && boottime_ns() >= first);
    }

    #[test]
    fn a_deadline_is_over_when_its_time_is() {
        assert!(Deadline::after(Duration::from_secs(60)).left().unwrap().as_secs() >= 59);
        assert!(Deadline::after(Duration::MAX).left().is_some());
        assert_eq!(Deadline::after(Duration::ZERO).left(), None);
    }
}
