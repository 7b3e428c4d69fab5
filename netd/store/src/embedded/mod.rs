//! The store of a single node: two files, read from memory.
//!
//! `networks.redb` is synced and lasts over reboots; `endpoints.journal` (keys under
//! [`super::keys::VOLATILE`]) is not, lasts over SIGKILL of netd, and is void in another
//! boot. Everything is held in memory: reads never touch a file, and memory follows
//! only what the files have taken.
//!
//! [`StoreError::Failed`] from a commit means that nothing was changed: a write that
//! may have reached the disk is rolled back when the file is opened anew, at the next
//! change. (If netd dies before that, it may turn out as made.)

mod backend;
mod boot_marker;
mod error;
mod file;
mod journal;
mod lease;
mod lock;
mod memory;
mod open;
mod record;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard},
    time::Instant,
};

use self::{lease::Leases, memory::Memory, watch::EmbeddedWatch, writer::Writer};
use super::{
    Entry, LeaseId, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome, Watch,
    rules::{self, Class},
};

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use self::journal::fuzz as fuzz_journal;
pub use self::{memory::HistoryLimit, open::EmbeddedOptions};

/// How long a lease whose keys could not be removed waits for the next try.
const RETRY: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct EmbeddedStore {
    writer: Arc<AsyncMutex<Writer>>,
    memory: Arc<RwLock<Memory>>,
    leases: Arc<Mutex<Leases>>,
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
            leases: Arc::clone(&writer.leases),
            published: writer.published.subscribe(),
            writer: Arc::new(AsyncMutex::new(writer)),
        }))
    }
}

/// Runs `change` with the writer. Syncing a file takes milliseconds and goes to a
/// thread of its own; a volatile change takes microseconds and stays. Either way it
/// runs to its end even if the caller is dropped, so disk and memory can't part.
/// A journal that is mostly past is made anew behind the caller's back.
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

/// Ends `lease` when its time is over, unless the store is closed before.
async fn expire(writer: Weak<AsyncMutex<Writer>>, leases: Arc<Mutex<Leases>>, lease: LeaseId) {
    loop {
        let Some(deadline) = leases.lock().deadline(lease) else { return };
        tokio::time::sleep_until(deadline).await;
        let Some(writer) = writer.upgrade() else { return };
        let due = |deadline| Instant::now() >= deadline;
        match run(writer, true, move |w| w.end_lease(lease, due)).await {
            Ok(true) => return,
            // Kept alive meanwhile.
            Ok(false) => {}
            Err(err) => {
                tracing::warn!(lease, %err, "keys of an ended lease could not be removed yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
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
        let syncs = class == Some(Class::Durable);
        run(Arc::clone(&self.writer), syncs, move |w| w.commit(txn, class)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(EmbeddedWatch {
            memory: Arc::clone(&self.memory),
            published: self.published.clone(),
            prefix: prefix.to_owned(),
            after,
            ended: false,
        }))
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        if ttl.is_zero() {
            return Err(StoreError::BadTransaction("a lease of no time; give it some".to_owned()));
        }
        let lease = self.leases.lock().grant(ttl, Instant::now());
        let task = expire(Arc::downgrade(&self.writer), Arc::clone(&self.leases), lease);
        self.leases.lock().set_timer(lease, tokio::spawn(task).abort_handle());
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.leases.lock().keep_alive(lease, Instant::now()) {
            true => Ok(()),
            false => Err(StoreError::LeaseGone(lease)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        run(Arc::clone(&self.writer), true, move |w| w.end_lease(lease, |_| true)).await.map(drop)
    }
}
