//! The side that is written: compares, then disk, then memory. One at a time.

use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::watch::Sender;

use super::{
    file::{Content, KvFile, RecordFile, Room},
    journal::{Journal, weight},
    lock::Lock,
};
use crate::{
    Entry, Revision, StoreError, Txn, TxnOutcome,
    keys::TOMBSTONES,
    memory::{Effect, Memory},
    rules::Class,
};

/// Whoever holds it is the only one who changes the store. It belongs under one
/// lock; `memory` is locked after it, and briefly.
#[derive(Debug)]
pub(super) struct Writer {
    pub durable: KvFile,
    pub volatile: Journal,
    pub memory: Arc<RwLock<Memory>>,
    pub published: Sender<Revision>,
    /// The last revision that was tried. A failed one is not used again: its file
    /// may hold it until it is rolled back.
    pub revision: Revision,
    /// Let go of after the files are closed: fields are dropped in order.
    pub _locks: [Lock; 2],
}

struct Growth {
    bytes: i64,
    room: Room,
}

impl Writer {
    /// A checked transaction whose changes are of `class`.
    pub(super) fn commit(
        &mut self,
        txn: Txn,
        class: Option<Class>,
    ) -> Result<TxnOutcome, StoreError> {
        if let Some(there) = self.memory.read().conflict(&txn.compares) {
            return Ok(TxnOutcome::Conflict(there));
        }
        let revision = self.revision + 1;
        let effects = self.memory.read().effects(txn.changes, revision);
        let Some(class) = class.filter(|_| !effects.is_empty()) else {
            return Ok(TxnOutcome::Committed(self.memory.read().revision()));
        };
        self.revision = revision;
        let growth = self.growth(&effects);
        self.write(class, &effects, revision, growth.room)?;
        if class == Class::Volatile {
            self.volatile.note_growth(growth.bytes);
        }
        self.publish(effects, revision);
        Ok(TxnOutcome::Committed(revision))
    }

    /// What a change adds to the records that there are. An attach makes something new; a
    /// detach ends something, and leaves a tombstone.
    fn growth(&self, effects: &[Effect]) -> Growth {
        /// A record that is changed may become longer by this much, bytes.
        const SLACK: i64 = 4096;
        let memory = self.memory.read();
        let (mut bytes, mut is_new) = (0, false);
        for effect in effects {
            let key = match effect {
                Effect::Put(entry) => {
                    bytes += weight(entry).cast_signed();
                    is_new |=
                        memory.get(&entry.key).is_none() && !entry.key.starts_with(TOMBSTONES);
                    &entry.key
                }
                Effect::Delete(key) => key,
            };
            bytes -= memory.get(key).map_or(0, |old| weight(old).cast_signed());
        }
        let room = if is_new || bytes > SLACK { Room::New } else { Room::Kept };
        Growth { bytes, room }
    }

    fn write(
        &mut self,
        class: Class,
        effects: &[Effect],
        revision: Revision,
        room: Room,
    ) -> Result<(), StoreError> {
        let file: &mut dyn RecordFile = match class {
            Class::Durable => &mut self.durable,
            Class::Volatile => &mut self.volatile,
        };
        if file.is_broken() {
            let found = file.reopen()?;
            let undo = differences(&self.memory.read(), class, &found);
            if !undo.is_empty() {
                file.write(&undo, revision, Room::Kept)?;
            }
        }
        file.write(effects, revision, room)
    }

    /// Rewrites the journal from what memory holds, if it is still overgrown.
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
        self.memory.write().apply(effects, revision);
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
