//! What happens in which order: events in, steps and news out. Pure; [`super::run`] does
//! what it says.
//!
//! One step is done at a time, and none is decided before the view has reached what the
//! last one changed. A subnet is used after the store has it, then the disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    OwnSubnets,
    diff::{Now, Peers},
    files::OwnFile,
    outbox::Outbox,
    own::{Facts, Me, Own, Step, Why},
    pace::{self, Pace},
    records::OwnerRecord,
    standing,
    view::{Part, Touched, View},
};
use crate::{
    overlay::{ClusterConfig, LeaseAttrs, Subnets, flannel},
    store::{Entry, Event, LeaseId, Outcome, Revision, StoreError, Txn},
};

/// After so long without a write, a subnet's keys are written at once again.
const QUIET: Duration = Duration::from_secs(30);
/// What was committed has to be seen within this time; else everything is listed anew.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What a node is told once.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub ttl: Duration,
    pub fixed: Option<Subnets>,
    pub preferred: Vec<Subnets>,
}

/// What came from the store.
#[derive(Debug)]
pub(super) enum Seen {
    List(Vec<Entry>, Revision),
    Changes(Vec<Event>, Revision),
    /// It can't be followed; why.
    Failed(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Grant(Duration),
    KeepAlive(LeaseId),
    Commit(Why, Txn),
    /// Write it durably.
    Save(OwnFile),
    /// List everything anew.
    Relist,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Done {
    Granted(Result<LeaseId, StoreError>),
    KeptAlive(LeaseId, Result<(), StoreError>),
    Committed(Why, Txn, Result<Outcome, StoreError>),
    Saved(OwnFile, Result<(), String>),
    Relisting,
}

/// What can fail by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Link {
    Watching(Part),
    Writing,
}

/// When a subnet's keys were last written, and may be again.
#[derive(Debug)]
struct Written {
    last: Instant,
    next: Instant,
    pace: Pace,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub settings: Settings,
    pub own: Own,
    pub view: View,
    pub peers: Peers,
    pub outbox: Outbox,
    pub config: Option<Arc<ClusterConfig>>,
    /// The configuration as it was read.
    config_text: Option<String>,
    /// What was last said about the configuration's absence or faults.
    pub config_problem: Option<String>,
    rng: fastrand::Rng,
    /// Whether there may be something to do.
    dirty: bool,
    synced: bool,
    /// Who had which lease at the last run.
    pub remembered_owners: BTreeMap<String, Arc<OwnerRecord>>,
    /// What is on disk, and what was told to be usable.
    saved: OwnFile,
    told: Vec<OwnSubnets>,
    save_pace: Pace,
    save_at: Option<Instant>,
    pub save_problem: Option<String>,
    /// What the view has to reach, and until when.
    awaited: BTreeMap<Part, (Revision, Instant)>,
    /// No step before.
    not_before: Option<Instant>,
    pace: Pace,
    written: BTreeMap<Subnets, Written>,
    /// When a subnet that had to wait may be written.
    rested_at: Option<Instant>,
    renew_at: Option<Instant>,
    /// When the etcd lease was last known to live, seconds since the epoch.
    pub renewed: Option<u64>,
    failing: BTreeMap<Link, (u64, String)>,
}

impl Core {
    /// A node that knows what it remembers.
    pub fn new(settings: Settings, me: Me, view: View, file: OwnFile, peers: Peers) -> Self {
        let mut own = Own {
            me,
            held: file.held.clone(),
            leaving: file.leaving.clone(),
            wanted: file.wanted.max(1),
            preferred: settings.preferred.clone(),
            fixed: settings.fixed,
            attrs: file.attrs.clone(),
            past: file.past.clone(),
            lease: None,
            ended: BTreeSet::new(),
            trying: None,
            conflicts: 0,
            problem: None,
        };
        if own.fixed.is_some() {
            own.wanted = 1;
        }
        let mut core = Self {
            settings,
            own,
            view,
            peers,
            outbox: Outbox::default(),
            config: None,
            config_text: None,
            config_problem: None,
            rng: fastrand::Rng::new(),
            dirty: true,
            synced: false,
            remembered_owners: BTreeMap::new(),
            saved: file,
            told: vec![],
            save_pace: Pace::default(),
            save_at: None,
            save_problem: None,
            awaited: BTreeMap::new(),
            not_before: None,
            pace: Pace::default(),
            written: BTreeMap::new(),
            rested_at: None,
            renew_at: None,
            renewed: None,
            failing: BTreeMap::new(),
        };
        if let Some(text) = core.saved.config.clone() {
            core.take_config(Some(text.as_bytes()));
        }
        core.tell_own();
        let known = core.peers.all();
        core.outbox.peers(known);
        core
    }

    #[cfg(test)]
    pub fn seed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
    }

    /// Since when it is behind, and why.
    pub fn behind(&self) -> Option<&(u64, String)> {
        self.failing.values().min_by_key(|(since, _)| *since)
    }

    // --- events ---

    /// Takes news from the store.
    pub fn seen(&mut self, part: Part, seen: Seen, now: Now) {
        match seen {
            Seen::Failed(why) => return self.failed(Link::Watching(part), why, now),
            Seen::List(entries, revision) => self.listed(part, entries, revision, now),
            Seen::Changes(events, revision) => self.changed(part, events, revision, now),
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
            self.own.held.keys().any(|s| !self.view.leases.contains_key(&flannel::key::name(s)));
        if self.view.at(Part::Flannel).is_some() {
            let mine = |name: &str, key: &_| is_mine(&self.own, &self.view, name, key);
            let updates = self.peers.list(&self.view.leases, &mine, own_missing, now);
            self.outbox.peers(updates);
        }
        if self.view.is_listed() && !self.synced {
            self.synced = true;
            self.outbox.synced();
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
                Touched::Node(id) => self.dirty |= id == self.own.me.id,
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
        // Removed and made again within one batch: it is there.
        gone.retain(|name| !self.view.leases.contains_key(name));
        let own_too = gone.iter().any(|name| self.holds(name));
        let updates = self.peers.removed(gone, own_too, now);
        self.outbox.peers(updates);
    }

    /// Tells what is under a lease's name now, if anything is.
    fn look_at(&mut self, name: &str, now: Now) {
        if let Some(key) = self.view.leases.get(name) {
            let mine = is_mine(&self.own, &self.view, name, key);
            self.outbox.peers(self.peers.set(name, key, mine, now).into_iter().collect());
        }
    }

    fn holds(&self, name: &str) -> bool {
        flannel::key::parse(name).is_ok_and(|s| self.own.held.contains_key(&s))
    }

    /// Whether a change of this name can lead to a step.
    fn concerns(&self, name: &str) -> bool {
        if self.config.as_deref().is_none_or(|config| !self.own.is_content(config)) {
            return true;
        }
        let own = || self.own.held.keys().chain(&self.own.leaving).chain(&self.own.trying);
        let mine = self.view.owners.get(name).is_some_and(|o| self.own.asker().owns(o));
        mine || flannel::key::parse(name)
            .is_ok_and(|subnets| own().any(|own| standing::overlap(own, &subnets)))
    }

    fn take_config(&mut self, bytes: Option<&[u8]>) {
        self.dirty = true;
        let key = self.view.keys.config();
        let Some(bytes) = bytes else {
            return self.config_is_bad(format!(
                "there is no {key}: write flannel's network configuration to it, e.g. \
                 {{\"Network\": \"10.5.0.0/16\", \"Backend\": {{\"Type\": \"vxlan\"}}}}"
            ));
        };
        match flannel::config::parse(bytes) {
            Err(problem) => self.config_is_bad(format!("{key}: {problem}")),
            Ok(read) => {
                read.warnings.iter().for_each(|w| tracing::warn!("{key}: {w}"));
                self.config_text = String::from_utf8(bytes.to_vec()).ok();
                let healed = self.config_problem.take().is_some();
                let news = self.config.as_deref() != Some(&read.config);
                if news || healed {
                    let config = Arc::new(read.config);
                    self.config = Some(Arc::clone(&config));
                    self.outbox.config(config);
                    self.tell_own();
                }
            }
        }
    }

    /// What was known stays in force.
    fn config_is_bad(&mut self, problem: String) {
        if self.config_problem.as_ref() != Some(&problem) {
            self.config_problem = Some(problem.clone());
            self.outbox.config_problem(problem);
        }
    }

    // --- wishes ---

    /// From now on the node's leases say this.
    pub fn announce(&mut self, attrs: LeaseAttrs) {
        // As it will be read back: a backend may leave out what it is.
        let text = flannel::value::format(&attrs);
        let attrs = flannel::value::parse(text.as_bytes()).unwrap_or(attrs);
        if self.own.attrs.as_ref() != Some(&attrs) {
            self.own.announce(attrs);
            self.dirty = true;
        }
    }

    /// One more subnet.
    pub fn more(&mut self) {
        if let Some(config) = self.config.clone() {
            self.own.want_more(&config);
            self.dirty = true;
        }
    }

    /// These are not used any more.
    pub fn give_back(&mut self, subnets: &[Subnets]) {
        self.own.give_back(subnets, self.config.as_deref());
        self.dirty = true;
    }

    // --- steps ---

    /// The next thing to do, if there is one now.
    pub fn next(&mut self, now: Now) -> Option<Action> {
        let updates = self.peers.tick(now);
        self.outbox.peers(updates);
        if self.dirty && self.is_caught_up() {
            self.settle(now);
        }
        if let Some(save) = self.save(now) {
            return Some(save);
        }
        if self.awaited.values().any(|(_, until)| *until <= now.mono) {
            self.awaited.clear();
            return Some(Action::Relist);
        }
        if self.not_before.is_some_and(|at| at > now.mono) {
            return None;
        }
        if let Some(lease) = self.own.lease
            && self.renew_at.is_none_or(|at| at <= now.mono)
        {
            return Some(Action::KeepAlive(lease));
        }
        if self.rested_at.is_some_and(|at| at <= now.mono) {
            (self.rested_at, self.dirty) = (None, true);
        }
        if !self.is_caught_up() || !self.dirty {
            return None;
        }
        self.dirty = false;
        self.step(now)
    }

    fn is_caught_up(&self) -> bool {
        self.view.is_listed() && self.awaited.is_empty()
    }

    /// Follows the view with what the node holds.
    fn settle(&mut self, now: Now) {
        let settled = self.own.settle(&self.view);
        for (subnets, who) in settled.lost {
            let name = flannel::key::name(&subnets);
            tracing::warn!("subnet {name} is lost: it belongs to {who}");
            self.outbox.lost(subnets);
            self.look_at(&name, now);
        }
        for subnets in settled.gained {
            let name = flannel::key::name(&subnets);
            tracing::info!("subnet {name} is this node's");
            self.look_at(&name, now);
        }
        self.own.forget_left(&self.view);
        if let Some(config) = self.config.as_deref() {
            let fitting = self.own.held.keys().filter(|s| self.own.fits(config, s)).count();
            self.own.wanted = self.own.wanted.max(fitting);
        }
        self.tell_own();
    }

    /// Tells which subnets can be used: those that are held, and on disk.
    fn tell_own(&mut self) {
        let usable = self.own.held.iter().filter(|(s, _)| self.saved.held.contains_key(s));
        let own = usable.map(|(subnets, since)| {
            let key = flannel::key::name(subnets);
            OwnSubnets {
                reservation: self.view.leases.get(&key).is_some_and(|l| l.bound == 0),
                fits: self.config.as_deref().is_none_or(|c| self.own.fits(c, subnets)),
                subnets: *subnets,
                since: *since,
                key,
            }
        });
        let own: Vec<_> = own.collect();
        if own != self.told {
            self.told = own.clone();
            self.outbox.own(own);
        }
    }

    fn file(&self) -> OwnFile {
        OwnFile {
            config: self.config_text.clone().or_else(|| self.saved.config.clone()),
            attrs: self.own.attrs.clone(),
            past: self.own.past.clone(),
            wanted: self.own.wanted,
            held: self.own.held.clone(),
            leaving: self.own.leaving.clone(),
        }
    }

    fn save(&mut self, now: Now) -> Option<Action> {
        let file = self.file();
        if file == self.saved || self.save_at.is_some_and(|at| at > now.mono) {
            return None;
        }
        Some(Action::Save(file))
    }

    fn step(&mut self, now: Now) -> Option<Action> {
        self.written.retain(|_, written| {
            written.next > now.mono || now.mono.saturating_duration_since(written.last) < QUIET
        });
        let busy = self.written.iter().filter(|(_, written)| written.next > now.mono);
        self.rested_at = busy.clone().map(|(_, written)| written.next).min();
        let facts = Facts {
            view: &self.view,
            config: self.config.as_deref(),
            busy: busy.map(|(subnets, _)| *subnets).collect(),
            lately_gone: self.peers.lately_gone(self.settings.ttl, now).copied().collect(),
            unix: now.unix,
        };
        let mut step = self.own.step(&facts, &mut self.rng)?;
        if let Step::NoSubnet(problem) = step {
            tracing::warn!("{problem}");
            self.outbox.no_subnet(problem);
            step = self.own.step(&facts, &mut self.rng)?;
        }
        match step {
            Step::Grant => Some(Action::Grant(self.settings.ttl)),
            Step::Try(lease) => Some(Action::KeepAlive(lease)),
            Step::Commit(why, txn) => Some(Action::Commit(why, txn)),
            Step::NoSubnet(_) => None,
        }
    }

    /// Takes what became of an action.
    pub fn done(&mut self, done: Done, now: Now) {
        self.dirty = true;
        match done {
            Done::Relisting => {}
            Done::Saved(file, result) => self.saved(file, result, now),
            Done::Granted(Ok(lease)) => self.is_renewed(lease, now),
            Done::KeptAlive(lease, Ok(())) => self.is_renewed(lease, now),
            Done::Granted(Err(StoreError::LeaseGone(lease)))
            | Done::KeptAlive(_, Err(StoreError::LeaseGone(lease)))
            | Done::Committed(_, _, Err(StoreError::LeaseGone(lease))) => self.lease_ended(lease),
            Done::Committed(why, txn, Ok(outcome)) => self.committed(&why, &txn, outcome, now),
            Done::Granted(Err(err))
            | Done::KeptAlive(_, Err(err))
            | Done::Committed(_, _, Err(err)) => {
                self.wait(now);
                self.failed(Link::Writing, err.to_string(), now);
            }
        }
    }

    fn saved(&mut self, file: OwnFile, result: Result<(), String>, now: Now) {
        match result {
            Ok(()) => {
                self.saved = file;
                self.save_pace.reset();
                (self.save_at, self.save_problem) = (None, None);
                self.tell_own();
            }
            Err(problem) => {
                self.save_at = Some(now.mono + self.save_pace.failed(&mut self.rng));
                self.save_problem = Some(problem);
            }
        }
    }

    fn is_renewed(&mut self, lease: LeaseId, now: Now) {
        self.worked();
        self.own.lease = Some(lease);
        self.renewed = Some(now.unix);
        self.renew_at = Some(now.mono + pace::about(self.settings.ttl / 3, &mut self.rng));
    }

    fn lease_ended(&mut self, lease: LeaseId) {
        tracing::warn!(lease, "the node's lease in the store has ended; getting another");
        self.worked();
        self.own.ended.insert(lease);
        self.own.lease = self.own.lease.filter(|l| *l != lease);
        self.renew_at = None;
    }

    fn committed(&mut self, why: &Why, txn: &Txn, outcome: Outcome, now: Now) {
        self.works(Link::Writing);
        match outcome {
            Outcome::Committed(revision) => {
                self.pace.reset();
                for change in &txn.changes {
                    self.await_part(change.key(), revision, now);
                }
                if let Why::Write(subnets) = why {
                    self.note_write(*subnets, now);
                }
            }
            // Somebody was faster, or the view is behind: it will show.
            Outcome::Conflict(there) => {
                for entry in &there {
                    self.await_part(&entry.key, entry.mod_revision, now);
                }
                if let Why::Claim(subnets) = why {
                    self.claim_failed(subnets, &there, now);
                }
                self.wait(now);
            }
        }
    }

    /// Nothing is decided before the view has seen this change of a key.
    fn await_part(&mut self, key: &str, revision: Revision, now: Now) {
        let part = self.view.part_of(key);
        let awaited = self.awaited.get(&part).map(|(revision, _)| *revision);
        if self.view.at(part).max(awaited) < Some(revision) {
            self.awaited.insert(part, (revision, now.mono + SEEN_WITHIN));
        }
    }

    /// Unless it was the node itself, by a transaction whose outcome it never learned.
    fn claim_failed(&mut self, subnets: &Subnets, there: &[Entry], now: Now) {
        let name = flannel::key::name(subnets);
        let owner = there.iter().find(|entry| entry.key == self.view.keys.owner(&name));
        let owner = owner.and_then(|entry| OwnerRecord::parse(&entry.value).ok());
        if owner.is_none_or(|record| record.id != self.own.me.id) {
            self.own.conflicts = self.own.conflicts.saturating_add(1);
            self.own.trying = None;
            self.look_at(&name, now);
        }
    }

    /// Who removes the node's keys again and again is not to be met at full speed.
    fn note_write(&mut self, subnets: Subnets, now: Now) {
        let first = Written { last: now.mono, next: now.mono, pace: Pace::default() };
        let written = self.written.entry(subnets).or_insert(first);
        written.last = now.mono;
        written.next = now.mono + written.pace.failed(&mut self.rng);
    }

    fn wait(&mut self, now: Now) {
        self.not_before = Some(now.mono + self.pace.failed(&mut self.rng));
    }

    fn worked(&mut self) {
        self.pace.reset();
        self.not_before = None;
        self.works(Link::Writing);
    }

    fn failed(&mut self, link: Link, why: String, now: Now) {
        let was = self.behind().cloned();
        let since = self.failing.get(&link).map_or(now.unix, |(since, _)| *since);
        self.failing.insert(link, (since, why));
        if was.is_none() {
            self.outbox.behind(self.behind().cloned());
        }
    }

    fn works(&mut self, link: Link) {
        if self.failing.remove(&link).is_none() {
            return;
        }
        // The store is back: what waits for it need not wait longer.
        (self.not_before, self.dirty) = (None, true);
        if link != Link::Writing && self.failing.contains_key(&Link::Writing) {
            self.renew_at = None;
        }
        if self.failing.is_empty() {
            self.outbox.behind(None);
        }
    }

    /// When [`Self::next`], which has nothing to do now, may have without an event.
    pub fn wake_at(&self, now: Now) -> Option<Instant> {
        let awaited = self.awaited.values().map(|(_, until)| *until);
        let times =
            [self.peers.wake_at(), self.save_at, self.not_before, self.renew_at, self.rested_at];
        // What is due and not done waits for one of the others.
        awaited.chain(times.into_iter().flatten()).filter(|at| *at > now.mono).min()
    }
}

/// Whether a lease is this node's, or about to be: it is no peer then.
fn is_mine(own: &Own, view: &View, name: &str, key: &super::view::LeaseKey) -> bool {
    if let Some(owner) = view.owners.get(name) {
        return own.asker().owns(owner)
            && key.subnets.as_ref().is_ok_and(|s| !is_overwritten(own, view, s));
    }
    // Before the owners are known, a lease with this node's address is likely its own.
    if view.at(Part::Cluster).is_none() && own.asker().is_at(key) {
        return true;
    }
    let wished = || own.held.keys().chain(&own.leaving).chain(&own.trying).chain(&own.preferred);
    key.subnets.as_ref().is_ok_and(|s| wished().any(|w| w == s)) && own.asker().is_at(key)
}

fn is_overwritten(own: &Own, view: &View, subnets: &Subnets) -> bool {
    let standing = own.asker().standing(view, subnets, true);
    matches!(standing, standing::Standing::Overwritten(_))
}
