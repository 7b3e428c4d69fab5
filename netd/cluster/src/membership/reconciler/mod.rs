//! Decides what happens in which order: store updates in, actions and pending updates out.
//! Pure; [`super::run`] carries the actions out.
//!
//! One step is done at a time, and none is decided before the view has reached what the
//! last one changed. A subnet is used after the store has it, then the disk.

mod action;
mod complete;
mod disk;
mod identity;
mod ingest;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;

use super::{
    IdentityUpdate, OwnSubnets,
    backoff::STORE_BACKOFF,
    claims::{ClaimContext, ClaimStep, Claims, Paced, Purpose},
    config_in_force::ConfigInForce,
    diff::{Now, Peers},
    files::OwnFile,
    pending_updates::PendingUpdates,
    records::OwnerRecord,
    tenure::{Tenure, Verdict},
    view::{Part, View},
    writes::NodeIdentity,
};
use crate::{LeaseAttrs, Subnets, flannel};
use netd_domain::Backoff;
use netd_store::Revision;

pub(super) use action::{Action, Completion, StoreUpdate};
use action::{Link, Written};

/// After so long without a write, a subnet's keys are written at once again.
const QUIET: Duration = Duration::from_secs(30);
/// What was committed has to be seen within this time; else everything is listed again.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// Fixed settings of a node.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub ttl: Duration,
    pub fixed: Option<Subnets>,
    pub preferred: Vec<Subnets>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reconciler {
    pub settings: Settings,
    pub claims: Claims,
    pub view: View,
    pub peers: Peers,
    pub pending: PendingUpdates,
    pub config: ConfigInForce,
    rng: fastrand::Rng,
    /// Whether there may be something to do.
    dirty: bool,
    synced: bool,
    /// Who had which lease at the last run.
    pub remembered_owners: BTreeMap<String, Arc<OwnerRecord>>,
    /// Whether the node's id is this machine's.
    tenure: Tenure,
    verdict: Verdict,
    /// The machine that has the node's id; `None`: none is known, or this one has a new id.
    displaced: Option<String>,
    /// What was last said of the id: it is in question, and why.
    pub identity_problem: Option<String>,
    /// Whether this node's address is known since the start.
    announced: bool,
    /// When it was first asked for an action.
    began: Option<Instant>,
    /// What is on disk, and what was told to be usable; `None`: nothing was told.
    saved: OwnFile,
    told: Option<Vec<OwnSubnets>>,
    save_backoff: Backoff,
    save_at: Option<Instant>,
    pub save_problem: Option<String>,
    /// What the view has to reach, and until when.
    awaited: BTreeMap<Part, (Revision, Instant)>,
    /// No step before.
    not_before: Option<Instant>,
    backoff: Backoff,
    written: BTreeMap<Paced, Written>,
    /// When something that had to wait may be written.
    rested_at: Option<Instant>,
    renew_at: Option<Instant>,
    /// When the etcd lease was last known to live, seconds since the epoch.
    pub renewed: Option<u64>,
    failing: BTreeMap<Link, (u64, String)>,
    /// When it was last cut off: what ended meanwhile may have been cut off with it.
    cut_off: Option<Instant>,
}

impl Reconciler {
    /// A node that knows what it remembers.
    pub(super) fn new(
        settings: Settings,
        me: NodeIdentity,
        view: View,
        file: OwnFile,
        peers: Peers,
    ) -> Self {
        let mut claims = Claims {
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
            overwritten: file.overwritten.clone(),
            unreadable: None,
            avoid: vec![],
        };
        if claims.fixed.is_some() {
            claims.wanted = 1;
        }
        let continues = |file: &OwnFile| {
            let same = file.incarnation.as_ref().is_none_or(|was| *was == claims.me.incarnation);
            same && !file.held.is_empty()
        };
        let tenure = Tenure::new(continues(&file));
        let mut reconciler = Self {
            settings,
            claims,
            view,
            peers,
            pending: PendingUpdates::default(),
            config: ConfigInForce::default(),
            rng: fastrand::Rng::new(),
            dirty: true,
            synced: false,
            remembered_owners: BTreeMap::new(),
            tenure,
            verdict: Verdict::Undecided,
            displaced: None,
            identity_problem: None,
            announced: false,
            began: None,
            saved: file,
            told: None,
            save_backoff: STORE_BACKOFF,
            save_at: None,
            save_problem: None,
            awaited: BTreeMap::new(),
            not_before: None,
            backoff: STORE_BACKOFF,
            written: BTreeMap::new(),
            rested_at: None,
            renew_at: None,
            renewed: None,
            failing: BTreeMap::new(),
            cut_off: None,
        };
        if let Some(text) = reconciler.saved.config.clone() {
            reconciler.take_config(Some(text.as_bytes()));
        }
        reconciler.tell_own();
        let known = reconciler.peers.all();
        reconciler.pending.peers(known);
        reconciler
    }

    #[cfg(test)]
    pub(crate) fn seed(&mut self, seed: u64) {
        self.rng = fastrand::Rng::with_seed(seed);
    }

    /// Since when it is behind, and why.
    pub(super) fn behind(&self) -> Option<&(u64, String)> {
        self.failing.values().min_by_key(|(since, _)| *since)
    }

    /// Sets what the node's leases say.
    pub(super) fn announce(&mut self, attrs: LeaseAttrs) {
        // As it will be read back: a backend may leave out what it is.
        let text = flannel::value::format(&attrs);
        let attrs = flannel::value::parse(text.as_bytes()).unwrap_or(attrs);
        // The first one says where this machine is, even if that is where it was.
        self.dirty |= !std::mem::replace(&mut self.announced, true);
        if self.claims.attrs.as_ref() != Some(&attrs) {
            self.claims.announce(attrs);
            self.dirty = true;
        }
    }

    /// Sets what no claim may overlap with.
    pub(super) fn avoid(&mut self, networks: Vec<IpNet>) {
        self.dirty |= self.claims.avoid != networks;
        self.claims.avoid = networks;
    }

    /// Asks for one more subnet.
    pub(super) fn more(&mut self) {
        if let Some(config) = self.config.shared() {
            self.claims.want_more(&config);
            self.dirty = true;
        }
    }

    /// Gives subnets back that are no longer used.
    pub(super) fn give_back(&mut self, subnets: &[Subnets]) {
        self.claims.give_back(subnets, self.config.now());
        self.dirty = true;
    }

    /// The next action, if one is due now.
    pub(super) fn next(&mut self, now: Now) -> Option<Action> {
        let updates = self.peers.tick(now);
        self.pending.peers(updates);
        if self.rested_at.is_some_and(|at| at <= now.mono) {
            (self.rested_at, self.dirty) = (None, true);
        }
        self.go_on_without_store(now);
        if self.dirty && self.is_caught_up() {
            self.judge_identity(now);
            if self.tenure.in_use {
                self.settle(now);
            } else {
                self.look_again(now);
            }
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
        if let Some(lease) = self.claims.lease
            && self.renew_at.is_none_or(|at| at <= now.mono)
        {
            return Some(Action::KeepAlive(lease));
        }
        // What was announced before the start may be another machine's address by now.
        if !self.is_caught_up() || !self.dirty || !self.announced {
            return None;
        }
        self.dirty = false;
        let step = self.step(now);
        self.look_again(now);
        step
    }

    fn is_caught_up(&self) -> bool {
        self.view.is_listed() && self.awaited.is_empty()
    }

    /// Updates what the node holds from the view.
    fn settle(&mut self, now: Now) {
        let settled = self.claims.settle(&self.view);
        for (subnets, who) in settled.lost {
            let name = flannel::key::name(&subnets);
            tracing::warn!("subnet {name} is lost: it belongs to {who}");
            self.pending.lost(subnets);
            self.note_write(Paced::Claim, now);
        }
        for subnets in settled.gained {
            let name = flannel::key::name(&subnets);
            tracing::info!("subnet {name} is this node's");
        }
        self.claims.forget_left(&self.view);
        if let Some(config) = self.config.now() {
            let fitting = self.claims.held.keys().filter(|s| self.claims.fits(config, s)).count();
            self.claims.wanted = self.claims.wanted.max(fitting);
        }
        self.look_again(now);
        self.tell_own();
    }

    /// Publishes the usable subnets: those that are held and recorded on disk.
    fn tell_own(&mut self) {
        let in_use = self.tenure.in_use;
        let held = self.claims.held.iter().filter(|_| in_use);
        let usable = held.filter(|(s, _)| self.saved.held.contains_key(s));
        let own = usable.map(|(subnets, since)| {
            let key = flannel::key::name(subnets);
            OwnSubnets {
                reservation: self.view.leases.get(&key).is_some_and(|l| l.bound == 0),
                fits: self.config.now().is_none_or(|c| self.claims.fits(c, subnets)),
                subnets: *subnets,
                since: *since,
                key,
            }
        });
        let own: Vec<_> = own.collect();
        if self.told.as_ref() != Some(&own) {
            self.told = Some(own.clone());
            self.pending.own(own);
        }
    }

    fn step(&mut self, now: Now) -> Option<Action> {
        self.written.retain(|_, written| {
            written.next > now.mono || now.mono.saturating_duration_since(written.last) < QUIET
        });
        let busy = self.written.iter().filter(|(_, written)| written.next > now.mono);
        self.rested_at = busy.clone().map(|(_, written)| written.next).min();
        let busy = busy.map(|(what, _)| *what).collect();
        match self.verdict.clone() {
            Verdict::Ours => {}
            Verdict::Write => {
                let step = self.claims.write_node(&self.view, now.unix);
                return step.and_then(|step| self.action_of(step));
            }
            Verdict::Challenge(txn) => return Some(Action::Commit(Purpose::Challenge, txn)),
            Verdict::WaitUntil(at) => {
                self.rested_at = self.rested_at.into_iter().chain([at]).min();
                return None;
            }
            Verdict::Undecided | Verdict::Theirs(_) => return None,
        }
        let context = ClaimContext {
            view: &self.view,
            config: self.config.now(),
            busy,
            lately_gone: self.peers.lately_gone(self.settings.ttl, now).copied().collect(),
            on_disk: &self.saved.held,
            unix: now.unix,
        };
        let unreadable = self.claims.unreadable.clone();
        let step = self.claims.step(&context, &mut self.rng);
        if self.claims.unreadable != unreadable {
            self.pending.unreadable(self.claims.unreadable.clone());
        }
        let mut step = step?;
        if let ClaimStep::NoSubnet(problem) = step {
            tracing::warn!("{problem}");
            self.pending.no_subnet(problem);
            step = self.claims.step(&context, &mut self.rng)?;
        }
        self.action_of(step)
    }

    fn action_of(&self, step: ClaimStep) -> Option<Action> {
        match step {
            ClaimStep::Grant => Some(Action::Grant(self.settings.ttl)),
            ClaimStep::Try(lease) => Some(Action::KeepAlive(lease)),
            ClaimStep::Commit(why, txn) => Some(Action::Commit(why, txn)),
            ClaimStep::NoSubnet(_) => None,
        }
    }

    /// When [`Self::next`], which has nothing to do now, may have without an event.
    pub(super) fn wake_at(&self, now: Now) -> Option<Instant> {
        let awaited = self.awaited.values().map(|(_, until)| *until);
        let times = [
            self.peers.wake_at(),
            self.save_at,
            self.not_before,
            self.renew_at,
            self.rested_at,
            self.goes_on_at(),
        ];
        // What is due and not done waits for one of the others.
        awaited.chain(times.into_iter().flatten()).filter(|at| *at > now.mono).min()
    }
}
