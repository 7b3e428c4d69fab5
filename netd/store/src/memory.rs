//! The side that is read: all entries and the latest changes, in memory.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use crate::{
    entry::{Entry, Revision},
    rules::Class,
    txn::{Change, Compare},
    watch::Event,
};

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

/// One change of one key.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    Put(Arc<Entry>),
    Delete(String),
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
pub(crate) enum Found {
    /// Changes after the revision asked for, up to `revision`.
    Changes { events: Vec<Event>, revision: Revision },
    /// They were forgotten.
    Forgotten,
}

/// Invariant: as committed to disk, at `revision`; `past` ascends and holds every
/// change after `floor`.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: BTreeMap<String, Arc<Entry>>,
    revision: Revision,
    past: VecDeque<Past>,
    past_bytes: usize,
    floor: Revision,
    limit: HistoryLimit,
}

impl Memory {
    /// What was read at start; earlier changes are not known.
    pub(crate) fn new(entries: Vec<Entry>, revision: Revision, limit: HistoryLimit) -> Self {
        let entries = entries.into_iter().map(|e| (e.key.clone(), Arc::new(e))).collect();
        Self { entries, revision, past: VecDeque::new(), past_bytes: 0, floor: revision, limit }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    /// In key order.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        let from = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry)
    }

    /// All of one class.
    pub(crate) fn of_class(&self, class: Class) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values().filter(move |e| Class::of(&e.key) == class)
    }

    /// The compared keys that exist, if a condition does not hold.
    pub(crate) fn conflict(&self, compares: &[Compare]) -> Option<Vec<Entry>> {
        let holds = |compare: &Compare| match (compare, self.get(compare.key())) {
            (Compare::Absent(_), entry) => entry.is_none(),
            (Compare::Present(_), entry) => entry.is_some(),
            (Compare::Unchanged(_, revision), entry) => {
                entry.is_some_and(|e| e.mod_revision == *revision)
            }
        };
        if compares.iter().all(holds) {
            return None;
        }
        let keys: BTreeSet<_> = compares.iter().map(Compare::key).collect();
        Some(keys.into_iter().filter_map(|k| self.get(k)).map(|e| Entry::clone(e)).collect())
    }

    /// What really changes: removing a key that does not exist is no change.
    pub(crate) fn effects(&self, changes: Vec<Change>, revision: Revision) -> Vec<Effect> {
        let effect = |change| match change {
            Change::Put { key, value, lease } => {
                let create_revision = self.get(&key).map_or(revision, |e| e.create_revision);
                let mod_revision = revision;
                let entry = Entry { key, value, create_revision, mod_revision, lease };
                Some(Effect::Put(Arc::new(entry)))
            }
            Change::Delete { key } => self.get(&key).map(|_| Effect::Delete(key)),
        };
        changes.into_iter().filter_map(effect).collect()
    }

    /// Takes over what was committed.
    pub(crate) fn apply(&mut self, effects: Vec<Effect>, revision: Revision) {
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

    /// Every change under `prefix` after revision `after`.
    pub(crate) fn since(&self, prefix: &str, after: Revision) -> Found {
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
    pub(crate) fn key(&self) -> &str {
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
