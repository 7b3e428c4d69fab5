//! What a watch yields.

use async_trait::async_trait;

use crate::{
    entry::{Entry, Revision},
    error::StoreError,
};

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
    /// change will follow.
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
