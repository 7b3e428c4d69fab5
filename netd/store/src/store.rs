//! What every store does, and what only a store with leases does.

use std::time::Duration;

use async_trait::async_trait;

use crate::{
    entry::{Entry, LeaseId, Revision, Snapshot},
    error::StoreError,
    txn::{Txn, TxnOutcome},
    watch::Watch,
};

/// A transactional, watchable map of keys to values.
#[async_trait]
pub trait Store: std::fmt::Debug + Send + Sync + 'static {
    /// "embedded", "etcd": for people.
    fn kind(&self) -> &'static str;

    /// One entry.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Every entry whose key starts with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError>;

    /// Compare-and-swap.
    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError>;

    /// Changes under `prefix` after revision `after`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;
}

/// A store whose keys can be bound to leases: a key goes when its lease ends.
#[async_trait]
pub trait LeaseStore: Store {
    /// Grants a lease that ends `ttl` after its last keep-alive.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Restarts the lease's time.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] when it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends the lease now. Ending one that is gone succeeds.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}
