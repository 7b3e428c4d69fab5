//! Takes updates from the store into the view.

use std::collections::BTreeSet;

use super::{Link, Reconciler, StoreUpdate};
use crate::{
    Subnets, flannel,
    membership::{
        claims::Claims,
        diff::Now,
        ownership::{self, Ownership},
        view::{LeaseKey, Part, Touched, View},
    },
};
use netd_store::{Entry, Event, Revision};

impl Reconciler {
    /// Takes an update from the store.
    pub(crate) fn ingest(&mut self, part: Part, seen: StoreUpdate, now: Now) {
        if !self.failing.is_empty() {
            self.cut_off = Some(now.mono);
        }
        match seen {
            StoreUpdate::Failed(why) => return self.failed(Link::Watching(part), why, now),
            StoreUpdate::List(entries, revision) => self.listed(part, entries, revision, now),
            StoreUpdate::Changes(events, revision) => self.changed(part, events, revision, now),
        }
        self.works(Link::Watching(part));
        if self.awaited.get(&part).is_some_and(|(r, _)| self.view.at(part) >= Some(*r)) {
            self.awaited.remove(&part);
            self.dirty = true;
        }
    }

    fn listed(&mut self, part: Part, entries: Vec<Entry>, revision: Revision, now: Now) {
        self.view.list(part, entries, revision);
        // A list is of now, whatever revision that is: after a restore it may be an old one.
        self.awaited.remove(&part);
        self.dirty = true;
        if part == Part::Flannel {
            let config = self.view.config.take();
            self.take_config(config.as_deref());
            self.view.config = config;
        }
        let own_missing =
            self.claims.held.keys().any(|s| !self.view.leases.contains_key(&flannel::key::name(s)));
        if self.view.at(Part::Flannel).is_some() {
            let doubtful = own_missing || self.was_cut_off(now);
            let all = self.view.leases.iter().filter_map(|(name, key)| {
                let mine = is_mine(&self.claims, &self.view, name, key);
                Some((name.as_str(), self.view.seen(name, mine)?))
            });
            let all = all.collect();
            let updates = self.peers.list(&all, doubtful, now);
            self.pending.peers(updates);
            for (name, known) in self.peers.known() {
                if let Some(key) = self.view.leases.get_mut(name) {
                    key.share(&known.lease);
                }
            }
        }
        if self.view.is_listed() && !self.synced {
            self.synced = true;
            self.pending.synced();
        }
    }

    fn changed(&mut self, part: Part, events: Vec<Event>, revision: Revision, now: Now) {
        let mut gone = vec![];
        for touched in self.view.change(part, events, revision) {
            match touched {
                Touched::Config => {
                    let config = self.view.config.take();
                    self.take_config(config.as_deref());
                    self.view.config = config;
                }
                Touched::Node(id) => self.dirty |= id == self.claims.me.id,
                Touched::Owner(name) => {
                    self.dirty |= self.concerns(&name);
                    self.look_at(&name, now);
                }
                Touched::Lease(name) => {
                    self.dirty |= self.concerns(&name);
                    self.look_at(&name, now);
                    gone.push(name);
                }
            }
        }
        // A key that was removed and made again within one batch exists.
        gone.retain(|name| !self.view.leases.contains_key(name));
        let own_too = gone.iter().any(|name| self.holds(name));
        let doubtful = own_too || self.was_cut_off(now);
        let updates = self.peers.removed(gone, doubtful, now);
        self.pending.peers(updates);
    }

    /// Publishes the peer that a lease's name stands for now, if the key exists.
    pub(super) fn look_at(&mut self, name: &str, now: Now) {
        if let Some(key) = self.view.leases.get(name) {
            let mine = is_mine(&self.claims, &self.view, name, key);
            let seen = self.view.seen(name, mine);
            let update = seen.and_then(|seen| self.peers.set(name, seen, now));
            self.pending.peers(update.into_iter().collect());
        }
    }

    /// Looks again at every lease that is the node's, or was: whether it is depends on what
    /// the node holds, tries and announces, not on the store alone.
    pub(super) fn look_again(&mut self, now: Now) {
        let names = self.claims.wished().map(flannel::key::name);
        let names: BTreeSet<_> = names.chain(self.peers.mine().iter().cloned()).collect();
        names.iter().for_each(|name| self.look_at(name, now));
    }

    /// Whether the node was itself cut off lately: then it is unknown which of the others
    /// are dead, and which were cut off with it and will be back soon.
    fn was_cut_off(&self, now: Now) -> bool {
        let hold = self.peers.hold();
        self.cut_off.is_some_and(|at| now.mono.saturating_duration_since(at) < hold)
    }

    fn holds(&self, name: &str) -> bool {
        flannel::key::parse(name).is_ok_and(|s| self.claims.held.contains_key(&s))
    }

    /// Whether a change of this name can lead to a step.
    fn concerns(&self, name: &str) -> bool {
        if self.config.now().is_none_or(|config| !self.claims.is_content(config)) {
            return true;
        }
        let own = || self.claims.held.keys().chain(&self.claims.leaving).chain(&self.claims.trying);
        let mine = self.view.owners.get(name).is_some_and(|o| self.claims.claimant().owns(o));
        mine || flannel::key::parse(name)
            .is_ok_and(|subnets| own().any(|own| ownership::overlap(own, &subnets)))
    }

    pub(super) fn take_config(&mut self, bytes: Option<&[u8]>) {
        self.dirty = true;
        let key = self.view.keys.config();
        let missing = format!("there is no {key}: write flannel's network configuration to it");
        if self.config.take(&key, bytes.ok_or(missing), &mut self.pending) {
            self.tell_own();
        }
    }
}

/// Whether a lease is this node's, or about to be: then it is not a peer.
fn is_mine(claims: &Claims, view: &View, name: &str, key: &LeaseKey) -> bool {
    let owner = view.owners.get(name);
    if let Some(owner) = owner.filter(|owner| owner.record.is_ok()) {
        return claims.claimant().owns(owner)
            && key.subnets.as_ref().is_ok_and(|s| !is_overwritten(claims, view, s));
    }
    // Before the owners are known, a lease with this node's address is likely its own.
    if view.at(Part::Cluster).is_none() && claims.claimant().is_at(key) {
        return true;
    }
    key.subnets.as_ref().is_ok_and(|s| claims.wished().any(|w| w == s))
        && claims.claimant().is_at(key)
}

fn is_overwritten(claims: &Claims, view: &View, subnets: &Subnets) -> bool {
    let ownership = claims.claimant().ownership(view, subnets, true);
    matches!(ownership, Ownership::Overwritten(_))
}
