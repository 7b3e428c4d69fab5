//! The store on etcd.
//!
//! One member is talked to at a time, another when it fails. Every request ends within
//! [`EtcdOptions::request_timeout`]. [`StoreError::Unavailable`] means for `get`, `list`,
//! `grant`, `keep_alive` and `revoke`: no member answered, try again. For `commit` it means
//! that nothing was done, or that it is not known whether it was (the text says so):
//! read before you try again. [`StoreError::Failed`] means that etcd or the
//! configuration has to be changed, after which netd goes on by itself.
//!
//! etcd takes at most 128 changes, and 128 conditions, in one transaction, and
//! 1.5 MiB (its `--max-txn-ops` and `--max-request-bytes`).

mod cluster_identity;
mod error;
mod kv;
mod lease;
mod members;
mod metrics;
mod options;
mod resume;
mod watch;
mod watch_event;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch::Sender;

use self::members::Members;
use crate::{
    Entry, LeaseId, LeaseStore, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch,
};

pub use self::{
    metrics::{RequestMetrics, Rpc, RpcStats},
    options::{EtcdOptions, EtcdTls},
};

/// See the module.
#[derive(Debug)]
pub struct EtcdStore {
    members: Arc<Members>,
    /// Watches end when it is dropped.
    open: Sender<()>,
}

impl EtcdStore {
    /// Makes a store that connects with the first request: etcd need not be up.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when an endpoint, a file or a time can't be used.
    pub fn open(options: EtcdOptions) -> Result<Arc<Self>, StoreError> {
        let members = Arc::new(Members::new(options)?);
        Ok(Arc::new(Self { members, open: Sender::new(()) }))
    }

    /// What was asked of etcd so far.
    pub fn metrics(&self) -> Arc<RequestMetrics> {
        Arc::clone(&self.members.metrics)
    }
}

#[async_trait]
impl Store for EtcdStore {
    fn kind(&self) -> &'static str {
        "etcd"
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        kv::get(&self.members, key).await
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        kv::list(&self.members, prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        kv::commit(&self.members, txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let members = Arc::clone(&self.members);
        Ok(Box::new(watch::start(members, prefix, after, self.open.subscribe())))
    }
}

#[async_trait]
impl LeaseStore for EtcdStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        lease::grant(&self.members, ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        lease::keep_alive(&self.members, lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        lease::revoke(&self.members, lease).await
    }
}
