//! Transactions: conditions and changes that are made together.

use crate::entry::{Entry, LeaseId, Revision};

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

impl Change {
    /// The key that is changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

impl Compare {
    /// The key that is looked at.
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Unchanged(key, _) | Self::Present(key) => key,
        }
    }
}
