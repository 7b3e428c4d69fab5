//! Watches: each reads the history at its own pace.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::watch::Receiver;

use crate::{
    Revision, StoreError, Watch, WatchUpdate,
    memory::{Found, Memory},
};

/// Holds a place in the history and no events, so a slow consumer costs nothing;
/// one that falls behind the history's bound is told so.
#[derive(Debug)]
pub(crate) struct MemoryWatch {
    pub memory: Arc<RwLock<Memory>>,
    /// Changes with each revision; closed with the store.
    pub published: Receiver<Revision>,
    pub prefix: String,
    pub after: Revision,
    pub ended: bool,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Option<Result<WatchUpdate, StoreError>> {
        while !self.ended {
            // Before reading, so that what is committed meanwhile wakes us.
            self.published.borrow_and_update();
            let found = self.memory.read().since(&self.prefix, self.after);
            match found {
                Found::Forgotten => {
                    self.ended = true;
                    return Some(Ok(WatchUpdate::Compacted));
                }
                Found::Changes { events, revision } => {
                    self.after = revision;
                    if !events.is_empty() {
                        return Some(Ok(WatchUpdate::Changes { events, revision }));
                    }
                }
            }
            self.ended = self.published.changed().await.is_err();
        }
        None
    }
}
