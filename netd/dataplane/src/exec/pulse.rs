//! Signs of life of the threads that do kernel work. A netlink request that the kernel does
//! not answer, or a program that hangs, holds up its thread without an error; what is missing
//! then is the next beat.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A thread without a beat for this long hangs. The longest jobs (ten thousand peers of the
/// overlay) take about a second.
pub(crate) const STUCK_AFTER: Duration = Duration::from_secs(10);

/// One thread's beats.
#[derive(Debug)]
pub(crate) struct Pulse {
    name: &'static str,
    beats: AtomicU64,
    stuck: AtomicBool,
    /// The beats when [`Pulse::silence`] saw a new one last, and when that was; `None` before
    /// the first look.
    seen: Mutex<Option<(u64, Instant)>>,
}

/// A thread that has done nothing for a while, though it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// The thread's name, as in /proc/PID/task/TID/comm.
    pub thread: &'static str,
    /// For how long.
    pub time: Duration,
}

impl Pulse {
    pub(crate) fn new(name: &'static str) -> Self {
        let (beats, stuck) = Default::default();
        Self { name, beats, stuck, seen: Mutex::new(None) }
    }

    /// The thread is alive.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Relaxed);
    }

    /// Whether the thread hung when it was looked at last.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.load(Relaxed)
    }

    /// Looks at the thread, which is to beat at least every few seconds; `None`: it does.
    pub(crate) fn silence(&self, now: Instant) -> Option<Silence> {
        let mut seen = self.seen.lock();
        let beats = self.beats.load(Relaxed);
        let since = match *seen {
            Some((old, since)) if old == beats => since,
            _ => now,
        };
        *seen = Some((beats, since));
        let time = now.duration_since(since);
        let stuck = time >= STUCK_AFTER;
        self.stuck.store(stuck, Relaxed);
        stuck.then_some(Silence { thread: self.name, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_hangs_when_it_does_not_beat_for_long() {
        let pulse = Pulse::new("netd-x");
        let start = Instant::now();
        assert_eq!(pulse.silence(start), None);
        assert_eq!(pulse.silence(start + STUCK_AFTER / 2), None);
        let late = pulse.silence(start + 2 * STUCK_AFTER);
        assert!(late.is_some_and(|s| s.thread == "netd-x" && s.time >= STUCK_AFTER));
        assert!(pulse.is_stuck());
        pulse.beat();
        assert_eq!(pulse.silence(start + 3 * STUCK_AFTER), None);
        assert!(!pulse.is_stuck());
    }
}
