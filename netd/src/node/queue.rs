//! What has to be compared with the kernel again, and when: events are coalesced, retries
//! back off.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use netd_domain::{Backoff, EndpointKey, NetworkName};

/// Something that may differ in the kernel from what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// One endpoint.
    Endpoint(EndpointKey),
    /// One network's own objects.
    Network(NetworkName),
    /// The nftables tables.
    Firewall,
    /// The underlay's MTU.
    Underlay,
    /// The overlay's devices, routes, neighbours, tunnels.
    Overlay,
    /// All of it.
    Everything,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(key) => write!(f, "endpoint {key}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Firewall => f.write_str("the firewall"),
            Self::Underlay => f.write_str("the underlay's MTU"),
            Self::Overlay => f.write_str("the overlay"),
            Self::Everything => f.write_str("the node"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    failures: u32,
}

/// Events of one change come in bursts; the rest may come within this time.
const COALESCE_DELAY: Duration = Duration::from_millis(10);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), MAX_RETRY_DELAY);

/// Targets by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    due: Mutex<HashMap<Target, Due>>,
    changed: Notify,
}

impl Queue {
    /// Schedules a target after an event.
    pub(crate) fn soon(&self, target: Target) {
        let at = Instant::now() + COALESCE_DELAY;
        let mut due = self.due.lock();
        let entry = due.entry(target).or_insert(Due { at, failures: 0 });
        entry.at = entry.at.min(at);
        drop(due);
        self.changed.notify_one();
    }

    /// Schedules a target that has failed `failures` times before, later each time.
    pub(crate) fn later(&self, target: Target, failures: u32) {
        // The whole delay: only this node retries it.
        let at = Instant::now() + RETRY_BACKOFF.delay(failures, 1.0);
        let mut due = self.due.lock();
        due.entry(target).or_insert(Due { at, failures: failures + 1 });
        drop(due);
        self.changed.notify_one();
    }

    /// What is due at `now`, and when the next is.
    fn take(&self, now: Instant) -> (Vec<(Target, u32)>, Option<Instant>) {
        let mut due = self.due.lock();
        let ready: Vec<_> = due
            .iter()
            .filter(|(_, d)| d.at <= now)
            .map(|(target, d)| (target.clone(), d.failures))
            .collect();
        for (target, _) in &ready {
            due.remove(target);
        }
        (ready, due.values().map(|d| d.at).min())
    }

    /// Waits for the next targets that are due, each with its failures so far.
    pub(crate) async fn next(&self) -> Vec<(Target, u32)> {
        loop {
            let changed = self.changed.notified();
            let (ready, next) = self.take(Instant::now());
            if !ready.is_empty() {
                return ready;
            }
            match next {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_look_and_failures_wait_longer_each_time() {
        let queue = Queue::default();
        queue.soon(Target::Firewall);
        queue.soon(Target::Firewall);
        let (ready, next) = queue.take(Instant::now());
        assert!(ready.is_empty() && next.is_some());
        let (ready, next) = queue.take(Instant::now() + COALESCE_DELAY);
        assert_eq!((ready, next), (vec![(Target::Firewall, 0)], None));
        queue.later(Target::Firewall, 0);
        let (_, first) = queue.take(Instant::now());
        let (ready, _) = queue.take(first.unwrap());
        assert_eq!(ready, [(Target::Firewall, 1)]);
        queue.later(Target::Firewall, 60);
        let (_, last) = queue.take(Instant::now());
        assert!(last.unwrap() <= Instant::now() + MAX_RETRY_DELAY);
    }

    #[test]
    fn a_new_event_brings_a_retry_forward() {
        let queue = Queue::default();
        queue.later(Target::Underlay, 9);
        queue.soon(Target::Underlay);
        let (ready, _) = queue.take(Instant::now() + COALESCE_DELAY);
        assert_eq!(ready.len(), 1);
    }
}
