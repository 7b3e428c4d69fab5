//! Counts and durations of the requests to etcd.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rpc {
    /// One key, or where etcd is.
    Get,
    /// One page of a list.
    Page,
    /// A transaction.
    Commit,
    /// The start of a watch.
    Watch,
    /// A quiet watch asks how far it is.
    Progress,
    /// A new lease.
    Grant,
    /// A lease's time is restarted.
    KeepAlive,
    /// A lease ends.
    Revoke,
    /// Whether a lease is there.
    TimeToLive,
    /// Whether etcd is still the same one.
    Status,
    /// A new connection of a user.
    Authenticate,
}

impl Rpc {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Get,
        Self::Page,
        Self::Commit,
        Self::Watch,
        Self::Progress,
        Self::Grant,
        Self::KeepAlive,
        Self::Revoke,
        Self::TimeToLive,
        Self::Status,
        Self::Authenticate,
    ];

    /// For people and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Page => "page",
            Self::Commit => "commit",
            Self::Watch => "watch",
            Self::Progress => "progress",
            Self::Grant => "grant",
            Self::KeepAlive => "keep_alive",
            Self::Revoke => "revoke",
            Self::TimeToLive => "time_to_live",
            Self::Status => "status",
            Self::Authenticate => "authenticate",
        }
    }
}

/// Upper bounds of [`RpcStats::buckets`], seconds; what is slower is in none.
pub(crate) const BOUNDS: [f64; 12] =
    [0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.512, 1.024, 3.072];

/// What was counted of one kind since the store was opened.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcStats {
    /// Requests that ended, one for each member that was tried.
    pub count: u64,
    /// Those of them that were not answered or refused.
    pub failed: u64,
    /// The time of all of them.
    pub total: Duration,
    /// How many took at most the bound of the same place in [`BOUNDS`], and more than
    /// the bound before it.
    pub buckets: [u64; BOUNDS.len()],
}

#[derive(Debug, Default)]
struct RpcCounters {
    count: AtomicU64,
    failed: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len()],
}

/// Counters of all kinds; reading them costs etcd nothing.
#[derive(Debug, Default)]
pub struct RequestMetrics([RpcCounters; Rpc::ALL.len()]);

impl RequestMetrics {
    /// What was counted of a kind.
    pub fn read(&self, rpc: Rpc) -> RpcStats {
        let counters = self.of(rpc);
        RpcStats {
            count: counters.count.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            total: Duration::from_nanos(counters.nanoseconds.load(Relaxed)),
            buckets: counters.buckets.each_ref().map(|bucket| bucket.load(Relaxed)),
        }
    }

    /// Requests of all kinds.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|counters| counters.count.load(Relaxed)).sum()
    }

    pub(super) fn record(&self, rpc: Rpc, took: Duration, failed: bool) {
        let counters = self.of(rpc);
        counters.count.fetch_add(1, Relaxed);
        counters.failed.fetch_add(u64::from(failed), Relaxed);
        counters.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        let place = BOUNDS.iter().position(|bound| took.as_secs_f64() <= *bound);
        if let Some(bucket) = place.and_then(|place| counters.buckets.get(place)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    fn of(&self, rpc: Rpc) -> &RpcCounters {
        // `ALL` is in the order of declaration (see the test).
        #[allow(clippy::indexing_slicing)]
        &self.0[rpc as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_apart() {
        let metrics = RequestMetrics::default();
        for (place, rpc) in Rpc::ALL.into_iter().enumerate() {
            assert_eq!(rpc as usize, place);
            metrics.record(rpc, Duration::from_millis(place as u64), rpc == Rpc::Commit);
        }
        assert_eq!(metrics.total(), 11);
        let commit = metrics.read(Rpc::Commit);
        assert_eq!((commit.count, commit.failed, commit.total.as_millis()), (1, 1, 2));
        assert_eq!(commit.buckets.iter().position(|n| *n == 1), Some(2));
        metrics.record(Rpc::Get, Duration::from_secs(9), true);
        assert_eq!(metrics.read(Rpc::Get).buckets.iter().sum::<u64>(), 1);
    }
}
