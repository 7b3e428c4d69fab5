//! Takes the results of actions.

use super::{Completion, IdentityUpdate, Link, Reconciler, SEEN_WITHIN, Tenure, Written};
use crate::{
    Subnets, flannel,
    membership::{
        backoff::{STORE_BACKOFF, jittered},
        claims::{Paced, Purpose},
        diff::Now,
        files::OwnFile,
        records::OwnerRecord,
    },
};
use netd_store::{Entry, LeaseId, Revision, StoreError, Txn, TxnOutcome};

impl Reconciler {
    /// Takes the result of an action.
    pub(crate) fn complete(&mut self, done: Completion, now: Now) {
        self.dirty = true;
        match done {
            Completion::Relisting => {}
            Completion::Saved(file, result) => self.saved(file, result, now),
            Completion::NewId(result) => self.has_new_id(result, now),
            Completion::Granted(Ok(lease)) => {
                self.note_write(Paced::Grant, now);
                self.is_renewed(lease, now);
            }
            Completion::KeptAlive(lease, Ok(())) => self.is_renewed(lease, now),
            Completion::Granted(Err(StoreError::LeaseGone(lease)))
            | Completion::KeptAlive(_, Err(StoreError::LeaseGone(lease)))
            | Completion::Committed(_, _, Err(StoreError::LeaseGone(lease))) => {
                self.lease_ended(lease)
            }
            Completion::Committed(why, txn, Ok(outcome)) => {
                self.committed(&why, &txn, outcome, now)
            }
            Completion::Granted(Err(err))
            | Completion::KeptAlive(_, Err(err))
            | Completion::Committed(_, _, Err(err)) => {
                self.wait(now);
                self.failed(Link::Writing, err.to_string(), now);
            }
        }
    }

    fn saved(&mut self, file: OwnFile, result: Result<(), String>, now: Now) {
        match result {
            Ok(()) => {
                self.saved = file;
                self.save_backoff.reset();
                (self.save_at, self.save_problem) = (None, None);
                self.tell_own();
            }
            Err(problem) => {
                self.save_at = Some(now.mono + self.save_backoff.next_delay(self.rng.f64()));
                self.save_problem = Some(problem);
            }
        }
    }

    fn has_new_id(&mut self, result: Result<(String, OwnFile), String>, now: Now) {
        match result {
            Ok((id, file)) => {
                tracing::warn!(id, "this node has the new id {id}");
                let who = self.displaced.take().unwrap_or_default();
                self.claims.me.id.clone_from(&id);
                self.pending.identity(IdentityUpdate::Replaced { who, id });
                // No other machine has it.
                self.tenure = Tenure::new(true);
                self.written.clear();
                self.identity_problem = None;
                self.saved(file.clone(), Ok(()), now);
                self.look_again(now);
            }
            Err(problem) => self.saved(OwnFile::default(), Err(problem), now),
        }
    }

    fn is_renewed(&mut self, lease: LeaseId, now: Now) {
        self.worked();
        self.claims.lease = Some(lease);
        self.renewed = Some(now.unix);
        self.renew_at = Some(now.mono + jittered(self.settings.ttl / 3, &mut self.rng));
    }

    fn lease_ended(&mut self, lease: LeaseId) {
        tracing::warn!(lease, "the node's lease in the store has ended; getting another");
        self.worked();
        self.claims.ended.insert(lease);
        self.claims.lease = self.claims.lease.filter(|l| *l != lease);
        self.renew_at = None;
    }

    fn committed(&mut self, why: &Purpose, txn: &Txn, outcome: TxnOutcome, now: Now) {
        self.works(Link::Writing);
        match outcome {
            TxnOutcome::Committed(revision) => {
                self.backoff.reset();
                for change in &txn.changes {
                    self.await_part(change.key(), revision, now);
                }
                match why {
                    Purpose::Write(subnets) | Purpose::Release(subnets) => {
                        self.note_write(Paced::Subnets(*subnets), now);
                    }
                    Purpose::Node => self.note_write(Paced::Node, now),
                    Purpose::Challenge => self.tenure.challenged(revision, now.mono),
                    Purpose::Claim(_) => {}
                }
            }
            // Another node was faster, or the view is behind; the view will show which.
            TxnOutcome::Conflict(there) => {
                for entry in &there {
                    self.await_part(&entry.key, entry.mod_revision, now);
                }
                if let Purpose::Claim(subnets) = why {
                    self.claim_failed(subnets, &there);
                }
                self.wait(now);
            }
        }
    }

    /// Postpones decisions until the view has seen this change of a key.
    fn await_part(&mut self, key: &str, revision: Revision, now: Now) {
        let part = self.view.part_of(key);
        let awaited = self.awaited.get(&part).map(|(revision, _)| *revision);
        if self.view.at(part).max(awaited) < Some(revision) {
            self.awaited.insert(part, (revision, now.mono + SEEN_WITHIN));
        }
    }

    /// Drops the claim, unless the owner is this node itself, by a transaction whose outcome
    /// it never learned.
    fn claim_failed(&mut self, subnets: &Subnets, there: &[Entry]) {
        let name = flannel::key::name(subnets);
        let owner = there.iter().find(|entry| entry.key == self.view.keys.owner(&name));
        let owner = owner.and_then(|entry| OwnerRecord::parse(&entry.value).ok());
        if owner.is_none_or(|record| record.id != self.claims.me.id) {
            self.claims.conflicts = self.claims.conflicts.saturating_add(1);
            self.claims.trying = None;
        }
    }

    /// Slows down writes that another writer undoes again and again.
    pub(super) fn note_write(&mut self, what: Paced, now: Now) {
        let first = Written { last: now.mono, next: now.mono, backoff: STORE_BACKOFF };
        let written = self.written.entry(what).or_insert(first);
        written.last = now.mono;
        written.next = now.mono + written.backoff.next_delay(self.rng.f64());
    }

    fn wait(&mut self, now: Now) {
        self.not_before = Some(now.mono + self.backoff.next_delay(self.rng.f64()));
    }

    fn worked(&mut self) {
        self.backoff.reset();
        self.not_before = None;
        self.works(Link::Writing);
    }

    pub(super) fn failed(&mut self, link: Link, why: String, now: Now) {
        self.cut_off = Some(now.mono);
        let was = self.behind().cloned();
        let since = self.failing.get(&link).map_or(now.unix, |(since, _)| *since);
        self.failing.insert(link, (since, why));
        if was.is_none() {
            self.pending.behind(self.behind().cloned());
        }
    }

    pub(super) fn works(&mut self, link: Link) {
        if self.failing.remove(&link).is_none() {
            return;
        }
        // The store is back: what waits for it need not wait longer.
        (self.not_before, self.dirty) = (None, true);
        if link != Link::Writing && self.failing.contains_key(&Link::Writing) {
            self.renew_at = None;
        }
        if self.failing.is_empty() {
            self.pending.behind(None);
        }
    }
}
