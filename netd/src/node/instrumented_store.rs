//! The store as the use cases see it: commits are timed, and failures show in readiness.

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
    Change, Entry, LeaseId, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch, keys,
    rules::Class,
};

/// A store whose commits are watched.
#[derive(Debug)]
pub struct InstrumentedStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    volatile_fails: AtomicBool,
    durable_fails: AtomicBool,
}

impl InstrumentedStore {
    /// Watches `inner`.
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>, health: Arc<Health>) -> Self {
        let (volatile_fails, durable_fails) = Default::default();
        Self { inner, metrics, health, volatile_fails, durable_fails }
    }

    /// A node that is not ready gets no pods, and so no commits: while the last one
    /// failed, others are made up, or nobody would see that the store works again.
    pub async fn probe(&self) {
        let probes = [
            (&self.volatile_fails, keys::PROBE_VOLATILE),
            (&self.durable_fails, keys::PROBE_DURABLE),
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

    fn judge(&self, class: Class, failure: Option<&StoreError>) {
        let fails = match class {
            Class::Volatile => &self.volatile_fails,
            Class::Durable => &self.durable_fails,
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

/// Between two looks at a store that fails.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

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
            self.judge(class, result.as_ref().err());
        }
        result
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, after).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }
}
