//! What the loop does for the reconciler, and what it brings back.

use std::time::{Duration, Instant};

use crate::membership::{claims::Purpose, files::OwnFile, view::Part};
use netd_domain::Backoff;
use netd_store::{Entry, Event, LeaseId, Revision, StoreError, Txn, TxnOutcome};

/// An update from the store.
#[derive(Debug)]
pub(in crate::membership) enum StoreUpdate {
    List(Vec<Entry>, Revision),
    Changes(Vec<Event>, Revision),
    /// The store can't be followed; the reason.
    Failed(String),
}

/// What the loop has to do.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::membership) enum Action {
    Grant(Duration),
    KeepAlive(LeaseId),
    Commit(Purpose, Txn),
    /// Write it durably.
    Save(OwnFile),
    /// Take a new node id, and write it durably with this.
    TakeNewId(OwnFile),
    /// List everything again.
    Relist,
}

/// The result of an action.
#[derive(Debug)]
pub(in crate::membership) enum Completion {
    Granted(Result<LeaseId, StoreError>),
    KeptAlive(LeaseId, Result<(), StoreError>),
    Committed(Purpose, Txn, Result<TxnOutcome, StoreError>),
    Saved(OwnFile, Result<(), String>),
    NewId(Result<(String, OwnFile), String>),
    Relisting,
}

/// The connections that can fail independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Link {
    Watching(Part),
    Writing,
}

/// When a subnet's keys were last written, and may be again.
#[derive(Debug)]
pub(super) struct Written {
    pub last: Instant,
    pub next: Instant,
    pub backoff: Backoff,
}
