//! Waiting, with an end.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::scale;

/// How many times longer [`until`] waits: `NETD_TEST_PATIENCE`, 3 in `make test`, whose machine may
/// have other work, and 10 where the processor is emulated.
fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| scale("NETD_TEST_PATIENCE", 1).unwrap_or(1).max(1))
}

/// Does nothing for a while. Tests watch other processes, whose events they can't await.
#[allow(clippy::disallowed_methods)] // a test's own thread, nobody else runs on it
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Asks `ready` every few milliseconds until it answers `Ok`; its last error is part of ours.
pub fn until<T>(
    limit: Duration,
    what: &str,
    mut ready: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    let limit = limit * patience();
    loop {
        let last = match ready() {
            Ok(value) => return Ok((value, start.elapsed())),
            Err(error) => error,
        };
        if start.elapsed() > limit {
            bail!("{what}: not within {limit:?}: {last:#}");
        }
        pause(Duration::from_millis(10));
    }
}

/// CLOCK_BOOTTIME in nanoseconds, as `issued_at` counts.
pub fn boottime() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)?;
    Ok(u64::try_from(std::time::Duration::from(now).as_nanos())?)
}
