//! The side that is read: all entries and the latest changes, in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::file::Effect;
use crate::{Entry, Event, Revision, rules::Class};

/// How many past changes a watch can still be given. What is over is forgotten,
/// oldest first; the latest revision is always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimit {
    /// At most so many revisions.
    pub revisions: usize,
    /// At most so many bytes of keys and values.
    pub bytes: usize,
}

impl Default for HistoryLimit {
    fn default() -> Self {
        Self { revisions: 10_000, bytes: 4 << 20 }
    }
}

/// The changes of one revision.
#[derive(Debug)]
struct Past {
    revision: Revision,
    effects: Vec<Effect>,
    bytes: usize,
}

/// What a watch finds.
#[derive(Debug)]
pub(super) enum Found {
    /// Changes after the revision asked for, up to `revision`.
    Changes { events: Vec<Event>, revision: Revision },
    /// They were forgotten.
    Forgotten,
}

/// Invariant: as committed to disk, at `revision`; `past` ascends and holds every
/// change after `floor`.
#[derive(Debug)]
pub(super) struct Memory {
    entries: BTreeMap<String, Arc<Entry>>,
    revision: Revision,
    past: VecDeque<Past>,
    past_bytes: usize,
    floor: Revision,
    limit: HistoryLimit,
}

impl Memory {
    /// What was read at start; earlier changes are not known.
    pub(super) fn new(entries: Vec<Entry>, revision: Revision, limit: HistoryLimit) -> Self {
        let entries = entries.into_iter().map(|e| (e.key.clone(), Arc::new(e))).collect();
        Self { entries, revision, past: VecDeque::new(), past_bytes: 0, floor: revision, limit }
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// In key order.
    pub(super) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }

    /// All of one class.
    pub(super) fn of_class(&self, class: Class) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().filter(move |e| Class::of(&e.key) == class)
    }

    /// Takes over what was committed to disk.
    pub(super) fn apply(&mut self, effects: Vec<Effect>, revision: Revision) {
        let mut bytes = 0;
        for effect in &effects {
            match effect {
                Effect::Put(entry) => {
                    bytes += entry.key.len() + entry.value.len();
                    self.entries.insert(entry.key.clone(), Arc::clone(entry));
                }
                Effect::Delete(key) => {
                    bytes += key.len();
                    self.entries.remove(key);
                }
            }
        }
        self.revision = revision;
        self.past_bytes += bytes;
        self.past.push_back(Past { revision, effects, bytes });
        self.forget();
    }

    fn forget(&mut self) {
        let over = |m: &Self| {
            m.past.len() > m.limit.revisions.max(1)
                || (m.past.len() > 1 && m.past_bytes > m.limit.bytes)
        };
        while over(self) {
            let Some(oldest) = self.past.pop_front() else { break };
            self.past_bytes -= oldest.bytes;
            self.floor = oldest.revision;
        }
    }

    /// Forgets every past change.
    pub(super) fn forget_all(&mut self) {
        self.past.clear();
        self.past_bytes = 0;
        self.floor = self.revision;
    }

    /// Every change under `prefix` after revision `after`.
    pub(super) fn since(&self, prefix: &str, after: Revision) -> Found {
        if after < self.floor {
            return Found::Forgotten;
        }
        let start = self.past.partition_point(|p| p.revision <= after);
        let mut events = vec![];
        for past in self.past.range(start..) {
            let own = past.effects.iter().filter(|e| e.key().starts_with(prefix));
            events.extend(own.map(|e| e.event(past.revision)));
        }
        // A revision in the future stays: what comes before it was not asked for.
        Found::Changes { events, revision: self.revision.max(after) }
    }
}

impl Effect {
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }

    fn event(&self, revision: Revision) -> Event {
        match self {
            Self::Put(entry) => Event::Put(Entry::clone(entry)),
            Self::Delete(key) => Event::Delete { key: key.clone(), revision },
        }
    }
}
