//! The store: one trait, shaped for etcd, so that the embedded store and etcd
//! are interchangeable. [`Store::commit`] decides who owns an address or a subnet.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
mod entry;
mod error;
pub mod etcd;
pub mod keys;
mod memory;
mod memory_watch;
pub mod rules;
mod store;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;
mod txn;
mod watch;

pub use self::{
    entry::{Entry, LeaseId, Revision, Snapshot},
    error::StoreError,
    store::{LeaseStore, Store},
    txn::{Change, Compare, Txn, TxnOutcome},
    watch::{Event, Watch, WatchUpdate},
};
