//! The store: one trait, shaped for etcd, so that the embedded store and etcd
//! are interchangeable. Who owns an address or a subnet is decided by [`Store::commit`].

use std::time::Duration;

use async_trait::async_trait;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
pub mod etcd;
pub mod keys;
pub mod rules;

/// Orders all changes of a store; strictly increasing, 1 is the first change.
pub type Revision = i64;

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of the change that created the key.
    pub create_revision: Revision,
    /// Revision of the last change.
    pub mod_revision: Revision,
    /// The lease it is bound to; 0: none.
    pub lease: LeaseId,
}

/// All entries under a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// In key order.
    pub entries: Vec<Entry>,
    /// A watch after this revision sees every later change.
    pub revision: Revision,
}

/// Identifies a lease; never 0.
pub type LeaseId = i64;

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key is not there.
    Absent(String),
    /// The key is there and was last changed at this revision.
    Unchanged(String, Revision),
    /// The key is there, whatever its value.
    Present(String),
}

/// A change of a transaction. No key may be changed twice in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sets a key; lease 0 binds it to none.
    Put { key: String, value: Vec<u8>, lease: LeaseId },
    /// Removes a key; removing one that is not there is no change.
    Delete { key: String },
}

/// All changes are made, at one revision, if all conditions hold; else none is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions.
    pub compares: Vec<Compare>,
    /// Changes.
    pub changes: Vec<Change>,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Made, at this revision (the store's revision if nothing changed).
    Committed(Revision),
    /// Nothing was changed: the compared keys that are there, as they are.
    Conflict(Vec<Entry>),
}

/// One change that a watch saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A key was set.
    Put(Entry),
    /// A key was removed (or its lease ended).
    Delete { key: String, revision: Revision },
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchUpdate {
    /// Changes of one or more whole revisions, in order; resume after `revision`.
    /// Without any event only right after an error: the watch goes on, and every later
    /// change will be told.
    Changes { events: Vec<Event>, revision: Revision },
    /// The revisions asked for are gone, or the store's data was replaced by that of a
    /// backup: list again and watch from there.
    /// The stream ends after this.
    Compacted,
}

/// A running watch; dropping it ends it.
#[async_trait]
pub trait Watch: Send {
    /// The next changes; `None` when the store is closed. May be dropped and called again
    /// (in a `select!`): nothing gets lost.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] once for each failed attempt to get on, with growing
    /// pauses. The watch lasts: call again, it goes on by itself where it was, and says so
    /// with a [`WatchUpdate::Changes`].
    async fn next(&mut self) -> Option<Result<WatchUpdate, StoreError>>;
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Out of reach or overloaded: nothing, or not known what, was done; try again. After
    /// a [`Store::commit`], read what is there first: it may have been made.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The disk is full or read-only, or the file is damaged.
    #[error("store failed at {path}: {reason}")]
    Failed {
        /// The file or the endpoint.
        path: String,
        /// What happened, and what to do.
        reason: String,
    },
    /// Another process holds it.
    #[error("{path} is in use by another netd; stop that one or choose another state directory")]
    InUse {
        /// The file.
        path: String,
    },
    /// The transaction breaks a rule of the trait: a programming error.
    #[error("bad transaction: {0}")]
    BadTransaction(String),
    /// The lease is not there (any more).
    #[error("lease {0} has ended")]
    LeaseGone(LeaseId),
}

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

    /// A lease that ends `ttl` after its last keep-alive; its keys go with it.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Begins the lease's time anew.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] when it has ended.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends the lease now. Ending one that is gone succeeds.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;
}
