//! What is known of the other nodes' leases, and what of it changed. Pure.
//!
//! Only differences are told: a renewal, a reconnection, a new list of what was known
//! anyway tell nothing. A lease that can't be read leaves what was known of it in force.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::PeerUpdate;
use crate::{Lease, Subnets};
use netd_store::Revision;

/// Subnets that are remembered as lately gone, at most.
const MAX_GONE: usize = 4096;

/// The time, on two clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For intervals.
    pub mono: Instant,
    /// Seconds since the epoch, for people.
    pub unix: u64,
}

/// A lease that is in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    /// What it says.
    pub lease: Arc<Lease>,
    /// See [`Seen::created`].
    pub created: Revision,
    /// See [`Seen::modified`].
    pub modified: Revision,
    /// When this node first saw it, seconds since the epoch.
    pub since: u64,
}

/// Revisions of a lease: since when it is claimed, and its last write.
#[derive(Debug, Clone, Copy)]
struct Claim {
    created: Revision,
    modified: Revision,
}

/// What a source has under a name now.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// What it says, or why it can't be read.
    pub lease: &'a Result<Arc<Lease>, String>,
    /// Of two leases that overlap the one with the smaller number is in force.
    pub created: Revision,
    /// Of the last write.
    pub modified: Revision,
    /// Whether it is this node's own, and so no peer's.
    pub mine: bool,
}

/// All leases but this node's, by name.
#[derive(Debug)]
pub struct Peers {
    known: BTreeMap<String, Known>,
    refused: BTreeMap<String, String>,
    /// Leases that are there and this node's.
    mine: BTreeSet<String>,
    /// Gone, together with too many others to be believed at once: until when they
    /// stay in force.
    held: BTreeMap<String, Instant>,
    gone: VecDeque<(Instant, Subnets)>,
    hold: Duration,
    /// Counts up with each change.
    pub changes: u64,
}

impl Peers {
    /// What was known at the last run. Removals of many at once wait for `hold`.
    pub fn new(known: BTreeMap<String, Known>, hold: Duration) -> Self {
        Self {
            known,
            refused: BTreeMap::new(),
            mine: BTreeSet::new(),
            held: BTreeMap::new(),
            gone: VecDeque::new(),
            hold,
            changes: 0,
        }
    }

    /// Everything that is known, as if it were new.
    pub fn all(&self) -> Vec<PeerUpdate> {
        self.known.iter().map(|(name, known)| known.update(name)).collect()
    }

    pub fn known(&self) -> &BTreeMap<String, Known> {
        &self.known
    }

    /// Names that can't be read, with the reason.
    pub fn refused(&self) -> &BTreeMap<String, String> {
        &self.refused
    }

    /// Names that are no peer's, because they are this node's.
    pub fn mine(&self) -> &BTreeSet<String> {
        &self.mine
    }

    /// How long removals that are not believed wait.
    pub fn hold(&self) -> Duration {
        self.hold
    }

    /// How many are gone and still in force.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Subnets that a node had until lately: it may be cut off and still use them.
    pub(super) fn lately_gone(&self, within: Duration, now: Now) -> impl Iterator<Item = &Subnets> {
        let lately = move |at: Instant| now.mono.saturating_duration_since(at) < within;
        self.gone.iter().filter(move |(at, _)| lately(*at)).map(|(_, subnets)| subnets)
    }

    /// Compares all with a list.
    pub fn list(
        &mut self,
        all: &BTreeMap<&str, Seen<'_>>,
        doubtful: bool,
        now: Now,
    ) -> Vec<PeerUpdate> {
        let is_there = |name: &String| all.contains_key(name.as_str());
        self.mine.retain(is_there);
        let names: BTreeSet<_> = self.known.keys().chain(self.refused.keys()).cloned().collect();
        let gone: Vec<_> = names.into_iter().filter(|name| !is_there(name)).collect();
        let mut updates = self.removed(gone, doubtful, now);
        for (name, seen) in all {
            updates.extend(self.set(name, *seen, now));
        }
        updates
    }

    /// Takes what is under a name now.
    pub fn set(&mut self, name: &str, seen: Seen<'_>, now: Now) -> Option<PeerUpdate> {
        self.held.remove(name);
        if seen.mine {
            self.mine.insert(name.to_owned());
            return self.forget(name);
        }
        self.mine.remove(name);
        let Seen { created, modified, .. } = seen;
        match seen.lease {
            Ok(lease) => self.accept(name, Claim { created, modified }, lease, now),
            Err(why) if self.refused.get(name) == Some(why) => None,
            Err(why) => {
                self.refused.insert(name.to_owned(), why.clone());
                self.changes += 1;
                Some(PeerUpdate::Refused { key: name.to_owned(), why: why.clone() })
            }
        }
    }

    fn accept(
        &mut self,
        name: &str,
        Claim { created, modified }: Claim,
        lease: &Arc<Lease>,
        now: Now,
    ) -> Option<PeerUpdate> {
        let healed = self.refused.remove(name).is_some();
        if let Some(known) = self.known.get_mut(name)
            && known.lease == *lease
        {
            // A renewal is no news. A lease that was made again has another age, which
            // decides which of two that overlap is in force.
            let is_news = healed || known.created != created;
            (known.created, known.modified) = (created, modified);
            return is_news.then(|| known.update(name));
        }
        let since = self.known.get(name).map_or(now.unix, |known| known.since);
        let known = Known { lease: Arc::clone(lease), created, modified, since };
        let update = known.update(name);
        self.known.insert(name.to_owned(), known);
        self.changes += 1;
        Some(update)
    }

    /// Takes that nothing is there under these names any more, all noticed at once.
    ///
    /// A node that dies takes its own leases with it. If more than half go at once, or
    /// this node's with others', then the store was emptied or an old
    /// copy was restored, and the living will put theirs back: until then they stay in force. So they do
    /// if it is `doubtful` for another reason.
    pub fn removed(&mut self, gone: Vec<String>, doubtful: bool, now: Now) -> Vec<PeerUpdate> {
        self.mine.retain(|name| !gone.contains(name));
        let gone: Vec<_> = gone.into_iter().filter(|n| !self.held.contains_key(n)).collect();
        let known = gone.iter().filter(|n| self.known.contains_key(*n)).count();
        let doubtful = known > 0 && (doubtful || (known >= 2 && known * 2 > self.known.len()));
        if !doubtful {
            return gone.iter().filter_map(|name| self.drop_gone(name, now)).collect();
        }
        let until = now.mono + self.hold;
        let (hold, rest): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|name| self.known.contains_key(name));
        self.held.extend(hold.into_iter().map(|name| (name, until)));
        rest.iter().filter_map(|name| self.forget(name)).collect()
    }

    /// When [`Self::tick`] has something to do.
    pub fn wake_at(&self) -> Option<Instant> {
        self.held.values().min().copied()
    }

    /// Removes what was held long enough.
    pub fn tick(&mut self, now: Now) -> Vec<PeerUpdate> {
        let over = |until: &Instant| *until <= now.mono;
        let names = self.held.iter().filter(|(_, until)| over(until)).map(|(name, _)| name.clone());
        let names: Vec<_> = names.collect();
        names.iter().filter_map(|name| self.drop_gone(name, now)).collect()
    }

    fn drop_gone(&mut self, name: &str, now: Now) -> Option<PeerUpdate> {
        if let Some(known) = self.known.get(name) {
            self.gone.push_back((now.mono, known.lease.subnets));
            if self.gone.len() > MAX_GONE {
                self.gone.pop_front();
            }
        }
        self.held.remove(name);
        self.forget(name)
    }

    fn forget(&mut self, name: &str) -> Option<PeerUpdate> {
        let known = self.known.remove(name).is_some();
        let refused = self.refused.remove(name).is_some();
        (known || refused).then(|| {
            self.changes += 1;
            PeerUpdate::Removed { key: name.to_owned() }
        })
    }
}

impl Known {
    fn update(&self, name: &str) -> PeerUpdate {
        PeerUpdate::Set {
            key: name.to_owned(),
            lease: Arc::clone(&self.lease),
            created: self.created,
            mod_revision: self.modified,
            since: self.since,
        }
    }
}
