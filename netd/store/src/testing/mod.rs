//! A store in memory that has leases: etcd's rules without etcd, for tests.

mod leases;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch::Sender, time::Instant};

use self::leases::Leases;
use crate::{
    Change, Entry, LeaseId, LeaseStore, Revision, Snapshot, Store, StoreError, Txn, TxnOutcome,
    Watch,
    memory::{Effect, HistoryLimit, Memory},
    memory_watch::MemoryWatch,
    rules,
};

/// Nothing of it outlives the process.
#[derive(Debug)]
pub struct MemoryStore(Arc<Shared>);

/// `leases` is locked before `memory`.
#[derive(Debug)]
struct Shared {
    leases: Mutex<Leases>,
    memory: Arc<RwLock<Memory>>,
    published: Sender<Revision>,
}

impl MemoryStore {
    /// An empty store that remembers `history`.
    pub fn new(history: HistoryLimit) -> Arc<Self> {
        Arc::new(Self(Arc::new(Shared {
            leases: Mutex::new(Leases::new()),
            memory: Arc::new(RwLock::new(Memory::new(vec![], 0, history))),
            published: Sender::new(0),
        })))
    }
}

impl Shared {
    fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        rules::check(&txn)?;
        let mut leases = self.leases.lock();
        let mut memory = self.memory.write();
        if let Some(there) = memory.conflict(&txn.compares) {
            return Ok(TxnOutcome::Conflict(there));
        }
        let now = Instant::now();
        for change in &txn.changes {
            if let Change::Put { lease, .. } = change
                && *lease != 0
                && !leases.is_alive(*lease, now)
            {
                return Err(StoreError::LeaseGone(*lease));
            }
        }
        let effects = memory.effects(txn.changes, memory.revision() + 1);
        self.apply(&mut leases, &mut memory, effects);
        Ok(TxnOutcome::Committed(memory.revision()))
    }

    /// Makes the changes at the next revision, if there are any.
    fn apply(&self, leases: &mut Leases, memory: &mut Memory, effects: Vec<Effect>) {
        if effects.is_empty() {
            return;
        }
        for effect in &effects {
            leases.rebind(effect, memory.get(effect.key()).map(AsRef::as_ref));
        }
        let revision = memory.revision() + 1;
        memory.apply(effects, revision);
        self.published.send_replace(revision);
    }

    /// Ends a lease for which `due` holds, and removes its keys at one revision. Returns
    /// whether the lease is gone.
    fn end_lease(&self, lease: LeaseId, due: impl Fn(Instant) -> bool) -> bool {
        let mut leases = self.leases.lock();
        let Some(keys) = leases.end(lease, due) else { return leases.deadline(lease).is_none() };
        let effects = keys.into_iter().map(Effect::Delete).collect();
        self.apply(&mut leases, &mut self.memory.write(), effects);
        leases.remove(lease);
        true
    }
}

/// Ends `lease` when its time is over, unless the store is dropped before.
async fn expire(shared: Weak<Shared>, lease: LeaseId) {
    loop {
        let deadline = shared.upgrade().and_then(|shared| shared.leases.lock().deadline(lease));
        let Some(deadline) = deadline else { return };
        tokio::time::sleep_until(deadline).await;
        let Some(shared) = shared.upgrade() else { return };
        if shared.end_lease(lease, |deadline| Instant::now() >= deadline) {
            return;
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.0.memory.read().get(key).map(|e| Entry::clone(e)))
    }

    async fn list(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let memory = self.0.memory.read();
        let entries = memory.under(prefix).map(|e| Entry::clone(e)).collect();
        Ok(Snapshot { entries, revision: memory.revision() })
    }

    async fn commit(&self, txn: Txn) -> Result<TxnOutcome, StoreError> {
        self.0.commit(txn)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(MemoryWatch {
            memory: Arc::clone(&self.0.memory),
            published: self.0.published.subscribe(),
            prefix: prefix.to_owned(),
            after,
            ended: false,
        }))
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        if ttl.is_zero() {
            return Err(StoreError::BadTransaction("a lease of no time; give it some".to_owned()));
        }
        let lease = self.0.leases.lock().grant(ttl, Instant::now());
        let timer = tokio::spawn(expire(Arc::downgrade(&self.0), lease)).abort_handle();
        self.0.leases.lock().set_timer(lease, timer);
        Ok(lease)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.0.leases.lock().keep_alive(lease, Instant::now()) {
            true => Ok(()),
            false => Err(StoreError::LeaseGone(lease)),
        }
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.0.end_lease(lease, |_| true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Subject};

    const HISTORY: usize = 300;

    struct InMemory(Arc<MemoryStore>);

    #[async_trait]
    impl Subject for InMemory {
        async fn store(&self) -> Arc<dyn Store> {
            Arc::clone(&self.0) as Arc<dyn Store>
        }

        async fn compact(&self, store: &Arc<dyn Store>) {
            for n in 0..=HISTORY {
                let value = n.to_string().into_bytes();
                let put = Change::Put { key: "/filler".to_owned(), value, lease: 0 };
                store.commit(Txn { compares: vec![], changes: vec![put] }).await.unwrap();
            }
        }
    }

    async fn check() {
        let history = HistoryLimit { revisions: HISTORY, bytes: 16 << 20 };
        let store = MemoryStore::new(history);
        conformance::run(&InMemory(Arc::clone(&store))).await;
        let store: Arc<dyn LeaseStore> = store;
        conformance::run_leases(&store).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memory_store_conforms_on_many_threads() {
        check().await;
    }

    #[tokio::test]
    async fn memory_store_conforms_on_one_thread() {
        check().await;
    }

    #[tokio::test]
    async fn a_lease_over_both_classes_removes_its_keys_at_one_revision() {
        let store = MemoryStore::new(HistoryLimit::default());
        let lease = store.grant(Duration::from_secs(600)).await.unwrap();
        let keys = [crate::keys::NETWORKS, crate::keys::ENDPOINTS].map(|at| format!("{at}k"));
        for key in keys.clone() {
            let changes = vec![Change::Put { key, value: vec![], lease }];
            store.commit(Txn { compares: vec![], changes }).await.unwrap();
        }
        let mut watch = store.watch("", 2).await.unwrap();
        store.revoke(lease).await.unwrap();
        let Some(Ok(crate::WatchUpdate::Changes { mut events, revision })) = watch.next().await
        else {
            panic!("no events")
        };
        events.sort_by_key(|e| format!("{e:?}"));
        let gone = keys.map(|key| crate::Event::Delete { key, revision });
        assert_eq!(events, gone);
    }
}
