//! The clock that orders attaches and detaches.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`: netd compares them with those of other calls, so
/// the clock must be the same for every process and never step. 0, which netd reads
/// as "on arrival", if the kernel refuses (none does).
pub fn boottime_ns() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward() {
        let first = boottime_ns();
        assert!(first > 0 && boottime_ns() >= first);
    }
}
