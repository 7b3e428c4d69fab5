//! The side that is written: compares, then disk, then memory. One at a time.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch::Sender, time::Instant};

use super::{
    file::{Content, Effect, KvFile, RecordFile},
    journal::Journal,
    lease::Leases,
    lock::Lock,
    memory::Memory,
};
use crate::{Change, Compare, Entry, LeaseId, Revision, StoreError, Txn, TxnOutcome, rules::Class};

/// Whoever holds it is the only one who changes the store. It belongs under one
/// lock; `leases` and `memory` are locked after it, in this order, and briefly.
#[derive(Debug)]
pub(super) struct Writer {
    pub durable: KvFile,
    pub volatile: Journal,
    pub memory: Arc<RwLock<Memory>>,
    pub leases: Arc<Mutex<Leases>>,
    pub published: Sender<Revision>,
    /// The last revision that was tried. A failed one is not used again: its file
    /// may hold it until it is rolled back.
    pub revision: Revision,
    /// Let go of after the files are closed: fields are dropped in order.
    pub _locks: [Lock; 2],
}

impl Writer {
    /// A checked transaction whose changes are of `class`.
    pub(super) fn commit(
        &mut self,
        txn: Txn,
        class: Option<Class>,
    ) -> Result<TxnOutcome, StoreError> {
        if let Some(there) = self.conflict(&txn.compares) {
            return Ok(TxnOutcome::Conflict(there));
        }
        self.check_leases(&txn.changes)?;
        let revision = self.revision + 1;
        let effects = self.effects(txn.changes, revision);
        let Some(class) = class.filter(|_| !effects.is_empty()) else {
            return Ok(TxnOutcome::Committed(self.memory.read().revision()));
        };
        self.revision = revision;
        self.write(class, &effects, revision)?;
        self.publish(effects, revision);
        Ok(TxnOutcome::Committed(revision))
    }

    /// Ends a lease for which `due` holds and removes its keys, at one revision.
    /// Whether it was ended, or was gone already.
    pub(super) fn end_lease(
        &mut self,
        lease: LeaseId,
        due: impl Fn(Instant) -> bool,
    ) -> Result<bool, StoreError> {
        let Some(keys) = self.leases.lock().end(lease, due) else {
            return Ok(self.leases.lock().deadline(lease).is_none());
        };
        self.remove(keys)?;
        self.leases.lock().remove(lease);
        Ok(true)
    }

    /// Removes keys of either class. The files are changed one after the other; a
    /// crash in between does no harm, as the rest goes when the store is opened.
    pub(super) fn remove(&mut self, keys: Vec<String>) -> Result<(), StoreError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.revision += 1;
        let revision = self.revision;
        let (volatile, durable): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| Class::of(key) == Class::Volatile);
        let mut all = vec![];
        for (class, keys) in [(Class::Volatile, volatile), (Class::Durable, durable)] {
            let effects: Vec<_> = keys.into_iter().map(Effect::Delete).collect();
            if !effects.is_empty() {
                self.write(class, &effects, revision)?;
                all.extend(effects);
            }
        }
        self.publish(all, revision);
        Ok(())
    }

    /// The compared keys that are there, if a condition does not hold.
    fn conflict(&self, compares: &[Compare]) -> Option<Vec<Entry>> {
        let memory = self.memory.read();
        let holds = |compare: &Compare| match (compare, memory.get(compare.key())) {
            (Compare::Absent(_), entry) => entry.is_none(),
            (Compare::Present(_), entry) => entry.is_some(),
            (Compare::Unchanged(_, revision), entry) => {
                entry.is_some_and(|e| e.mod_revision == *revision)
            }
        };
        if compares.iter().all(holds) {
            return None;
        }
        let keys: std::collections::BTreeSet<_> = compares.iter().map(Compare::key).collect();
        Some(keys.into_iter().filter_map(|k| memory.get(k)).map(|e| Entry::clone(e)).collect())
    }

    fn check_leases(&self, changes: &[Change]) -> Result<(), StoreError> {
        let now = Instant::now();
        for change in changes {
            if let Change::Put { lease, .. } = change
                && *lease != 0
                && !self.leases.lock().is_alive(*lease, now)
            {
                return Err(StoreError::LeaseGone(*lease));
            }
        }
        Ok(())
    }

    /// What really changes: removing a key that is not there does not.
    fn effects(&self, changes: Vec<Change>, revision: Revision) -> Vec<Effect> {
        let memory = self.memory.read();
        let effect = |change| match change {
            Change::Put { key, value, lease } => {
                let create_revision = memory.get(&key).map_or(revision, |e| e.create_revision);
                let mod_revision = revision;
                let entry = Entry { key, value, create_revision, mod_revision, lease };
                Some(Effect::Put(Arc::new(entry)))
            }
            Change::Delete { key } => memory.get(&key).map(|_| Effect::Delete(key)),
        };
        changes.into_iter().filter_map(effect).collect()
    }

    fn write(
        &mut self,
        class: Class,
        effects: &[Effect],
        revision: Revision,
    ) -> Result<(), StoreError> {
        let file: &mut dyn RecordFile = match class {
            Class::Durable => &mut self.durable,
            Class::Volatile => &mut self.volatile,
        };
        if file.is_broken() {
            let found = file.reopen()?;
            let undo = differences(&self.memory.read(), class, &found);
            if !undo.is_empty() {
                file.write(&undo, revision)?;
            }
        }
        file.write(effects, revision)
    }

    /// Makes the journal anew, of what memory holds, if it is still overgrown.
    pub(super) fn compact(&mut self) {
        if !self.volatile.is_overgrown() {
            return;
        }
        let memory = self.memory.read();
        let entries: Vec<_> = memory.of_class(Class::Volatile).cloned().collect();
        drop(memory);
        if let Err(error) = self.volatile.compact(entries.into_iter(), self.revision) {
            tracing::warn!(%error, "the journal goes on growing");
        }
    }

    fn publish(&self, effects: Vec<Effect>, revision: Revision) {
        let mut leases = self.leases.lock();
        let mut memory = self.memory.write();
        for effect in &effects {
            leases.rebind(effect, memory.get(effect.key()).map(AsRef::as_ref));
        }
        memory.apply(effects, revision);
        drop(memory);
        self.published.send_replace(revision);
    }
}

/// What makes a file's content that of the memory again: a write that was reported
/// as failed may have reached the disk after all, and must not come back.
fn differences(memory: &Memory, class: Class, found: &Content) -> Vec<Effect> {
    let gone = found.entries.iter().filter(|e| memory.get(&e.key).is_none());
    let mut effects: Vec<_> = gone.map(|e| Effect::Delete(e.key.clone())).collect();
    let on_disk: std::collections::HashMap<_, _> =
        found.entries.iter().map(|e| (e.key.as_str(), e)).collect();
    let differ = |e: &&Arc<Entry>| on_disk.get(e.key.as_str()).is_none_or(|d| **d != ***e);
    effects.extend(memory.of_class(class).filter(differ).map(|e| Effect::Put(Arc::clone(e))));
    effects
}
