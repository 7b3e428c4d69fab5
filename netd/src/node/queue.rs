//! What has to be compared with the kernel again, and when: events are coalesced, retries
//! back off.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::pace::{COALESCE_DELAY, Pace};
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
    /// The node's addresses, on which host ports are.
    HostAddresses,
    /// The underlay's MTU.
    Underlay,
    /// The overlay's devices, routes, neighbours, tunnels.
    Overlay,
    /// All of it.
    Everything,
}

impl Target {
    /// Others have no business with it. The host's addresses are theirs to change.
    fn is_netds(&self) -> bool {
        *self != Self::HostAddresses
    }

    fn coalesce_delay(&self) -> Duration {
        /// A service proxy adds addresses by the thousand.
        const ADDRESSES: Duration = Duration::from_millis(100);
        if self.is_netds() { COALESCE_DELAY } else { ADDRESSES }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(key) => write!(f, "endpoint {key}"),
            Self::Network(name) => write!(f, "network {name}"),
            Self::Firewall => f.write_str("the firewall"),
            Self::HostAddresses => f.write_str("host ports on the node's addresses"),
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

const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
const RETRY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), MAX_RETRY_DELAY);

#[derive(Debug, Default)]
struct Inner {
    due: HashMap<Target, Due>,
    /// Of targets that were looked at lately.
    paces: HashMap<Target, Pace>,
}

/// Targets by when they are due.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Queue {
    /// Schedules a target after an event; later if it is fought over.
    pub(crate) fn soon(&self, target: Target) {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        let delay = match inner.paces.get_mut(&target) {
            Some(pace) => pace.want(now),
            None => target.coalesce_delay(),
        };
        let at = now + delay;
        let entry = inner.due.entry(target).or_insert(Due { at, failures: 0 });
        entry.at = entry.at.min(at);
        drop(inner);
        self.changed.notify_one();
    }

    /// Whether another program changes the target as fast as netd repairs it.
    pub(crate) fn is_fought_over(&self, target: &Target) -> bool {
        self.inner.lock().paces.get(target).is_some_and(Pace::is_fought_over)
    }

    /// The targets that are fought over. Forgets fights that have ended.
    pub(crate) fn fights(&self) -> Vec<Target> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        inner.paces.retain(|_, pace| !pace.is_over(now));
        let fought = inner.paces.iter().filter(|(_, pace)| pace.is_fought_over());
        fought.map(|(target, _)| target.clone()).collect()
    }

    /// Schedules a target that has failed `failures` times before, later each time.
    pub(crate) fn later(&self, target: Target, failures: u32) {
        // The whole delay: only this node retries it.
        let at = Instant::now() + RETRY_BACKOFF.delay(failures, 1.0);
        let mut inner = self.inner.lock();
        inner.due.entry(target).or_insert(Due { at, failures: failures + 1 });
        drop(inner);
        self.changed.notify_one();
    }

    /// What is due at `now`, and when the next is.
    fn take(&self, now: Instant) -> (Vec<(Target, u32)>, Option<Instant>) {
        let Inner { due, paces } = &mut *self.inner.lock();
        let ready: Vec<_> = due
            .iter()
            .filter(|(_, d)| d.at <= now)
            .map(|(target, d)| (target.clone(), d.failures))
            .collect();
        for (target, _) in &ready {
            due.remove(target);
            if target.is_netds() {
                paces.entry(target.clone()).or_insert_with(|| Pace::new(now)).look(now);
            }
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
    fn a_target_that_is_fought_over_is_named_and_others_are_not_delayed() {
        let queue = Queue::default();
        for _ in 0..100 {
            queue.soon(Target::Firewall);
            queue.take(Instant::now() + Duration::from_secs(10));
        }
        assert_eq!(queue.fights(), [Target::Firewall]);
        assert!(queue.is_fought_over(&Target::Firewall));
        queue.soon(Target::Firewall);
        queue.soon(Target::Underlay);
        let (ready, _) = queue.take(Instant::now() + COALESCE_DELAY);
        assert_eq!(ready, [(Target::Underlay, 0)]);
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
