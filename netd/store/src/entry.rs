//! Stored values and the numbers that order them.

/// Orders all changes of a store; strictly increasing, 1 is the first change.
pub type Revision = i64;

/// Identifies a lease; never 0.
pub type LeaseId = i64;

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
