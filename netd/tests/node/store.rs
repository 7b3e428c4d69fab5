//! A store that fails when told to.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use async_trait::async_trait;
use netd_store::{Entry, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch};

/// Which commits fail: shared by all stores of a bed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Commits that still succeed; below zero: none fails.
    good: AtomicI64,
    /// Commits that fail after those.
    bad: AtomicI64,
}

impl Faults {
    /// After `good` commits that succeed, `bad` fail.
    pub(crate) fn after(&self, good: i64, bad: i64) {
        self.good.store(good, SeqCst);
        self.bad.store(bad, SeqCst);
    }

    /// None fails from now on.
    pub(crate) fn none(&self) {
        self.after(0, 0);
    }

    fn strikes(&self) -> bool {
        if self.bad.load(SeqCst) <= 0 || self.good.fetch_sub(1, SeqCst) > 0 {
            return false;
        }
        self.bad.fetch_sub(1, SeqCst) > 0
    }
}

#[derive(Debug)]
pub(crate) struct Failing {
    pub inner: Arc<dyn Store>,
    pub faults: Arc<Faults>,
}

#[async_trait]
impl Store for Failing {
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
        if self.faults.strikes() {
            return Err(StoreError::Failed { path: "test".into(), reason: "no space".into() });
        }
        self.inner.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.inner.watch(prefix, after).await
    }
}
