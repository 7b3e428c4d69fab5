//! Leases: which keys each one holds, and for how long.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::{Entry, LeaseId, memory::Effect};

/// Longest time of a lease; longer ones are cut.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    deadline: Instant,
    ended: bool,
    keys: BTreeSet<String>,
    timer: Option<AbortHandle>,
}

/// All leases. Invariant: a key is in the set of the lease that its entry names.
#[derive(Debug)]
pub(super) struct Leases {
    by_id: HashMap<LeaseId, Lease>,
    next: LeaseId,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self { by_id: HashMap::new(), next: 1 }
    }

    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        let id = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        let ttl = ttl.min(MAX_TTL);
        let keys = BTreeSet::new();
        let lease = Lease { ttl, deadline: now + ttl, ended: false, keys, timer: None };
        self.by_id.insert(id, lease);
        id
    }

    /// The task that ends the lease; stopped when the lease is removed.
    pub(super) fn set_timer(&mut self, id: LeaseId, timer: AbortHandle) {
        match self.by_id.get_mut(&id) {
            Some(lease) => lease.timer = Some(timer),
            None => timer.abort(),
        }
    }

    /// Whether it can hold keys.
    pub(super) fn is_alive(&self, id: LeaseId, now: Instant) -> bool {
        self.by_id.get(&id).is_some_and(|l| !l.ended && now < l.deadline)
    }

    /// Restarts its time; returns whether it was alive.
    pub(super) fn keep_alive(&mut self, id: LeaseId, now: Instant) -> bool {
        let alive = self.is_alive(id, now);
        if let Some(lease) = self.by_id.get_mut(&id).filter(|_| alive) {
            lease.deadline = now + lease.ttl;
        }
        alive
    }

    /// When it ends; `None` when it is gone.
    pub(super) fn deadline(&self, id: LeaseId) -> Option<Instant> {
        self.by_id.get(&id).map(|l| l.deadline)
    }

    /// Marks it as ended and says which keys have to go, if `due` holds for it.
    /// It stays until [`Self::remove`], so that a failed removal can be tried again.
    pub(super) fn end(
        &mut self,
        id: LeaseId,
        due: impl Fn(Instant) -> bool,
    ) -> Option<Vec<String>> {
        let lease = self.by_id.get_mut(&id).filter(|l| l.ended || due(l.deadline))?;
        lease.ended = true;
        Some(lease.keys.iter().cloned().collect())
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(timer) = self.by_id.remove(&id).and_then(|l| l.timer) {
            timer.abort();
        }
    }

    /// Follows a committed change of a key whose entry was `old`.
    pub(super) fn rebind(&mut self, effect: &Effect, old: Option<&Entry>) {
        let new = match effect {
            Effect::Put(entry) => entry.lease,
            Effect::Delete(_) => 0,
        };
        let old = old.map_or(0, |e| e.lease);
        if old == new {
            return;
        }
        if let Some(lease) = self.by_id.get_mut(&old) {
            lease.keys.remove(effect.key());
        }
        if let Some(lease) = self.by_id.get_mut(&new) {
            lease.keys.insert(effect.key().to_owned());
        }
    }
}
