//! The store of a single node: two files, read from memory.
//!
//! `networks.redb` is synced and lasts over reboots; `endpoints.journal` (keys under
//! [`super::keys::VOLATILE`]) is not, lasts over SIGKILL of netd, and is void in another
//! boot. Everything is held in memory: reads never touch a file, and memory follows
//! only what the files have taken.
//!
//! [`StoreError::Failed`] from a commit means that nothing was changed: a write that
//! may have reached the disk is rolled back when the file is opened again, at the next
//! change. (If netd dies before that, it may turn out as made.)
//!
//! It has no leases: its only client is the process that has it open.

mod backend;
mod boot_marker;
mod error;
mod file;
mod journal;
mod lock;
mod open;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use self::writer::Writer;
use crate::{
    Change, Entry, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch,
    memory::Memory,
    memory_watch::MemoryWatch,
    rules::{self, Class},
};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use self::journal::fuzz as fuzz_journal;
pub use self::open::EmbeddedOptions;
pub use crate::memory::HistoryLimit;

/// See the module.
#[derive(Debug)]
pub struct EmbeddedStore {
    writer: Arc<AsyncMutex<Writer>>,
    memory: Arc<RwLock<Memory>>,
    published: tokio::sync::watch::Receiver<Revision>,
}

impl EmbeddedStore {
    /// Opens the store, making its directories and files if need be. Blocks for some
    /// milliseconds, more the more there is to read.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process (or this one) has it open;
    /// [`StoreError::Failed`] when a file can't be made, read, written or trusted.
    pub fn open(options: EmbeddedOptions) -> Result<Arc<Self>, StoreError> {
        let writer = open::open(&options)?;
        Ok(Arc::new(Self {
            memory: Arc::clone(&writer.memory),
            published: writer.published.subscribe(),
            writer: Arc::new(AsyncMutex::new(writer)),
        }))
    }
}

/// Runs `change` with the writer. Syncing a file takes milliseconds and goes to a
/// thread of its own; a volatile change takes microseconds and stays. Either way it
/// runs to its end even if the caller is dropped, so disk and memory can't part.
/// A journal that is mostly past is rewritten in the background.
async fn run<T: Send + 'static>(
    writer: Arc<AsyncMutex<Writer>>,
    syncs: bool,
    change: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let mut writer = writer.lock_owned().await;
    if !syncs {
        let changed = change(&mut writer);
        if writer.volatile.is_overgrown() {
            // It takes the lock itself: one that waits for a thread must not hold it.
            let shared = Arc::clone(OwnedMutexGuard::mutex(&writer));
            tokio::task::spawn_blocking(move || shared.blocking_lock().compact());
        }
        return changed;
    }
    tokio::task::spawn_blocking(move || change(&mut writer))
        .await
        .unwrap_or_else(|e| Err(StoreError::Unavailable(format!("the write was ended: {e}"))))
}

#[async_trait]
impl Store for EmbeddedStore {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.memory.read().get(key).map(|e| Entry::clone(e)))
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let memory = self.memory.read();
        let entries = memory.under(prefix).map(|e| Entry::clone(e)).collect();
        Ok(Snapshot { entries, revision: memory.revision() })
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        let class = rules::check(&txn)?;
        check_no_lease(&txn)?;
        let syncs = class == Some(Class::Durable);
        run(Arc::clone(&self.writer), syncs, move |w| w.commit(txn, class)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(MemoryWatch {
            memory: Arc::clone(&self.memory),
            published: self.published.clone(),
            prefix: prefix.to_owned(),
            after,
            ended: false,
        }))
    }
}

/// A key bound to a lease would be one that nothing ever removes.
fn check_no_lease(txn: &Txn) -> Result<(), StoreError> {
    let bound = txn.changes.iter().find_map(|change| match change {
        Change::Put { key, lease, .. } if *lease != 0 => Some((key, lease)),
        _ => None,
    });
    match bound {
        Some((key, lease)) => Err(StoreError::BadTransaction(format!(
            "{} is bound to lease {lease}, but the embedded store has no leases; bind it to none (0)",
            key.escape_default()
        ))),
        None => Ok(()),
    }
}
