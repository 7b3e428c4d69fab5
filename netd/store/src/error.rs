//! Why a store could not do what it was asked for.

use crate::entry::LeaseId;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Out of reach or overloaded: nothing, or not known what, was done; try again. After
    /// a [`crate::Store::commit`], read the keys first: it may have been carried out.
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
