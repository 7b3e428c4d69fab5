//! The clocks: one that orders attaches and detaches, one that measures.

use core::time::Duration;

use syscalls::{Sysno, syscall};

/// Nanoseconds of `CLOCK_BOOTTIME`: netd compares them with those of other calls, so
/// the clock must be the same for every process and never step.
pub fn boottime_ns() -> u64 {
    const CLOCK_BOOTTIME: usize = 7;
    u64::try_from(read(CLOCK_BOOTTIME).as_nanos()).unwrap_or(u64::MAX)
}

/// A moment by which something has to be done.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Duration);

impl Deadline {
    /// `time` from now; at most a year.
    pub fn after(time: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        Self(now().saturating_add(time.min(YEAR)))
    }

    /// What is left; `None` when it is over.
    pub fn left(self) -> Option<Duration> {
        self.0.checked_sub(now()).filter(|left| !left.is_zero())
    }
}

fn now() -> Duration {
    const CLOCK_MONOTONIC: usize = 1;
    read(CLOCK_MONOTONIC)
}

/// `clock_gettime(2)`. Asked three times in a process's life, the kernel answers sooner
/// than the vDSO, whose symbols have to be found first.
fn read(clock: usize) -> Duration {
    let mut now = [0_u64; 2];
    // SAFETY: it fills a timespec: seconds, then nanoseconds below 10^9.
    let read = unsafe { syscall!(Sysno::clock_gettime, clock, now.as_mut_ptr()) };
    match read {
        Ok(_) => Duration::new(now[0], now[1] as u32),
        // There is no kernel without these clocks.
        Err(_) => Duration::ZERO,
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
