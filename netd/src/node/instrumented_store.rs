//! The store as the node uses it: commits are timed, and failures show in the health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;

use super::health::Health;
use crate::metrics::Metrics;
use netd_store::{
    Change, Entry, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch, keys,
    rules::Class,
};

/// A store whose commits are timed and whose failures are reported.
#[derive(Debug)]
pub(crate) struct InstrumentedStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    volatile_failed: AtomicBool,
    durable_failed: AtomicBool,
}

impl InstrumentedStore {
    /// Wraps `inner`.
    pub(crate) fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        let (volatile_failed, durable_failed) = Default::default();
        Self { inner, metrics, health, volatile_failed, durable_failed }
    }

    /// Commits a probe to each store whose last commit failed. A node that is not ready gets
    /// no pods, and so has no commits that would show that the store works again.
    pub(crate) async fn probe(&self) {
        let probes = [
            (&self.volatile_failed, keys::PROBE_VOLATILE),
            (&self.durable_failed, keys::PROBE_DURABLE),
        ];
        for (_, key) in probes.into_iter().filter(|(fails, _)| fails.load(Ordering::Relaxed)) {
            let put = Change::Put { key: key.to_owned(), value: vec![], lease: 0 };
            for change in [put, Change::Delete { key: key.to_owned() }] {
                let txn = Txn { compares: vec![], changes: vec![change] };
                if self.commit(txn).await.is_err() {
                    break;
                }
            }
        }
    }

    fn report(&self, class: Class, failure: Option<&StoreError>) {
        let fails = match class {
            Class::Volatile => &self.volatile_failed,
            Class::Durable => &self.durable_failed,
        };
        match (failure, class) {
            (Some(error @ (StoreError::Unavailable(_) | StoreError::Failed { .. })), class) => {
                fails.store(true, Ordering::Relaxed);
                match class {
                    // No pod can be attached.
                    Class::Volatile => self.health.bad("store", error),
                    Class::Durable => self.health.advise("store/networks", error),
                }
            }
            (None, class) if fails.swap(false, Ordering::Relaxed) => match class {
                Class::Volatile => self.health.good("store"),
                Class::Durable => self.health.forget("store/networks"),
            },
            _ => {}
        }
    }
}

/// Between two probes of a store that fails.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[async_trait]
impl Store for InstrumentedStore {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        self.inner.list(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let class = txn.changes.first().map(|change| Class::of(change.key()));
        let start = Instant::now();
        let result = self.inner.commit(txn).await;
        self.metrics.store_commit(start.elapsed());
        if let Some(class) = class {
            self.report(class, result.as_ref().err());
        }
        result
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, after).await
    }
}
