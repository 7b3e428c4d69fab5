//! This node's own leases: what it has, what it has to do next. Pure and
//! level-triggered: [`Claims::settle`] and [`Claims::step`] look at what the store says now,
//! never at what was tried before, so a step whose outcome is unknown, or that died with
//! netd, is simply looked at again. Every step is one transaction that compares all the
//! keys it changes.

mod choice;
mod readable;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    ownership::{self, Claimant, Ownership},
    view::{OwnerKey, Part, View},
    writes::{self, NodeIdentity, Writer},
};
use crate::{ClusterConfig, LeaseAttrs, Subnets, flannel};
use netd_store::{LeaseId, Txn};

/// Most subnets a node can have, so that a caller that asks again and again can't empty
/// the range.
pub(super) const MAX_SUBNETS: usize = 64;

/// How many earlier announcements are remembered.
pub(super) const MAX_PAST: usize = 8;

/// What a transaction is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To claim a subnet that the node did not have.
    Claim(Subnets),
    /// To correct a subnet's keys.
    Write(Subnets),
    /// To give up a subnet.
    Release(Subnets),
    /// To write the node's own record.
    Node,
    /// To ask another machine with this node's id whether it lives.
    Challenge,
}

/// What is not written again at once, so that a fight with another writer has a measured
/// pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Paced {
    /// A subnet's keys.
    Subnets(Subnets),
    /// The node's record.
    Node,
    /// A new etcd lease.
    Grant,
    /// A new subnet, after one was lost.
    Claim,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimStep {
    /// Get an etcd lease.
    Grant,
    /// See whether this lease, which the node's keys are bound to, still lives.
    Try(LeaseId),
    /// Change keys.
    Commit(Purpose, Txn),
    /// No subnet is free; the reason.
    NoSubnet(String),
}

/// Changes of the node's subnets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Lost subnets with their new owners.
    pub lost: Vec<(Subnets, String)>,
    pub gained: Vec<Subnets>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Claims {
    pub me: NodeIdentity,
    /// What the node has, and since when (seconds since the epoch).
    pub held: BTreeMap<Subnets, u64>,
    /// What it gives back; not used any more.
    pub leaving: BTreeSet<Subnets>,
    /// How many that fit the configuration it wants.
    pub wanted: usize,
    /// What it had before according to flannel's `subnet.env`.
    pub preferred: Vec<Subnets>,
    /// The only subnets it may have.
    pub fixed: Option<Subnets>,
    pub attrs: Option<LeaseAttrs>,
    /// What it announced before, latest first.
    pub past: Vec<LeaseAttrs>,
    /// The etcd lease that its keys are bound to.
    pub lease: Option<LeaseId>,
    /// Leases that were found to have ended.
    pub ended: BTreeSet<LeaseId>,
    /// Chosen, and not yet seen in the view as this node's or another's.
    pub trying: Option<Subnets>,
    /// Conflicts in a row: many nodes are choosing at the same time.
    pub conflicts: u32,
    /// Why it has too few, if there is nothing to take.
    pub problem: Option<String>,
    /// What it lost to a writer that ignores netd's keys, as long as that one's lease is there.
    pub overwritten: BTreeSet<Subnets>,
    /// Why its leases don't say what they should.
    pub unreadable: Option<String>,
    /// Networks of the host, which no claim may overlap with.
    pub avoid: Vec<IpNet>,
}

/// What the next step depends on.
#[derive(Debug)]
pub(super) struct ClaimContext<'a> {
    pub view: &'a View,
    pub config: Option<&'a ClusterConfig>,
    /// What was written a moment ago: it can wait.
    pub busy: BTreeSet<Paced>,
    /// Subnets that a node may still use although its lease is gone: others are preferred.
    pub lately_gone: Vec<Subnets>,
    /// What the node would use after a restart: it can't be given back yet.
    pub on_disk: &'a BTreeMap<Subnets, u64>,
    /// Seconds since the epoch.
    pub unix: u64,
}

impl Claims {
    pub(super) fn claimant(&self) -> Claimant<'_> {
        Claimant { id: &self.me.id, attrs: self.attrs.as_ref(), past: &self.past }
    }

    /// Subnets that are the node's, were, or are to be.
    pub(super) fn wished(&self) -> impl Iterator<Item = &Subnets> {
        let had = self.held.keys().chain(&self.leaving);
        had.chain(&self.trying).chain(&self.preferred).chain(&self.fixed)
    }

    /// From now on it announces this.
    pub(super) fn announce(&mut self, attrs: LeaseAttrs) {
        if let Some(old) = self.attrs.replace(attrs) {
            self.past.retain(|past| *past != old);
            self.past.insert(0, old);
            self.past.truncate(MAX_PAST);
        }
    }

    /// Whether the subnets are what the configuration wants a node to have.
    pub(super) fn fits(&self, config: &ClusterConfig, subnets: &Subnets) -> bool {
        if self.fixed.is_some_and(|fixed| fixed != *subnets) {
            return false;
        }
        subnets.v4.is_some() == config.v4.is_some()
            && subnets.v6.is_some() == config.v6.is_some()
            && subnets.iter().all(|net| ownership::is_inside(config.networks(), net))
    }

    fn fitting(&self, config: &ClusterConfig) -> usize {
        self.held.keys().filter(|s| self.fits(config, s)).count()
    }

    /// Whether it has as many subnets as it wants.
    pub(super) fn is_content(&self, config: &ClusterConfig) -> bool {
        self.fitting(config) >= self.wanted
    }

    /// Wants one more than it has, unless it is about to get one anyway.
    pub(super) fn want_more(&mut self, config: &ClusterConfig) {
        if self.is_content(config) {
            self.wanted = (self.fitting(config) + 1).min(MAX_SUBNETS);
        }
    }

    /// Stops using these; what is fixed or not its own is left alone.
    pub(super) fn give_back(&mut self, subnets: &[Subnets], config: Option<&ClusterConfig>) {
        for subnets in subnets {
            if self.fixed == Some(*subnets) || self.held.remove(subnets).is_none() {
                continue;
            }
            self.leaving.insert(*subnets);
            if config.is_none_or(|config| self.fits(config, subnets)) {
                self.wanted = self.wanted.saturating_sub(1).max(1);
            }
        }
    }

    /// Follows the store: drops subnets that were lost, and adds those that the node's id
    /// owns.
    pub(super) fn settle(&mut self, view: &View) -> Settled {
        let mut settled = Settled::default();
        self.overwritten.retain(|s| view.leases.contains_key(&flannel::key::name(s)));
        for subnets in self.held.keys() {
            match self.claimant().ownership(view, subnets, true) {
                Ownership::Overwritten(who) => {
                    self.overwritten.insert(*subnets);
                    settled.lost.push((*subnets, who));
                }
                Ownership::Taken(who) | Ownership::Outranked(who) => {
                    settled.lost.push((*subnets, who));
                }
                Ownership::Mine | Ownership::Free | Ownership::Takeover => {}
            }
        }
        for (subnets, _) in &settled.lost {
            self.held.remove(subnets);
        }
        for (subnets, since) in self.unheld(view) {
            self.held.insert(subnets, since);
            settled.gained.push(subnets);
        }
        if self.trying.is_some_and(|s| self.held.contains_key(&s)) {
            (self.trying, self.conflicts) = (None, 0);
        }
        settled
    }

    /// Subnets that are this node's and neither held nor given back, with their age: it
    /// has just claimed them, or did before it forgot.
    fn unheld(&self, view: &View) -> Vec<(Subnets, u64)> {
        let is_mine = |name: &String, subnets: &Subnets, owner: &OwnerKey| {
            // Without the lease, older claims may be out of sight, too.
            view.leases.contains_key(name)
                && *name == flannel::key::name(subnets)
                && self.claimant().owns(owner)
                && self.claimant().ownership(view, subnets, true) == Ownership::Mine
        };
        let found = view.owners.iter().filter_map(|(name, owner)| {
            let subnets = owner.subnets?;
            let known = self.held.contains_key(&subnets) || self.leaving.contains(&subnets);
            let since = owner.record.as_ref().map_or(0, |r| r.since);
            (!known && is_mine(name, &subnets, owner)).then_some((subnets, since))
        });
        found.collect()
    }

    /// The next thing to do; `None`: all is as it should be, or it can't be said yet.
    pub(super) fn step(
        &mut self,
        context: &ClaimContext<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<ClaimStep> {
        if let Some(release) = self.release(context) {
            return Some(release);
        }
        let announced = self.attrs.clone()?;
        let Some(lease) = self.lease else {
            let step = self.get_lease(context.view);
            let waits = step == ClaimStep::Grant && context.busy.contains(&Paced::Grant);
            return (!waits).then_some(step);
        };
        let rests = |subnets: &Subnets| context.busy.contains(&Paced::Subnets(*subnets));
        let (attrs, unreadable) = self.readable(announced, context);
        self.unreadable = unreadable;
        let attrs = attrs?;
        let writer = Writer { view: context.view, me: &self.me, attrs: &attrs, lease };
        for (subnets, since) in self.held.iter().filter(|(s, _)| !rests(s)) {
            if let Some(txn) = writer.subnets(subnets, *since) {
                return Some(ClaimStep::Commit(Purpose::Write(*subnets), txn));
            }
        }
        let short = context.config.filter(|config| !self.is_content(config));
        if let Some(config) = short.filter(|_| !context.busy.contains(&Paced::Claim)) {
            match self.choose(context, config, rng) {
                Ok(subnets) => {
                    self.trying = Some(subnets);
                    let txn = writer.subnets(&subnets, context.unix)?;
                    return Some(ClaimStep::Commit(Purpose::Claim(subnets), txn));
                }
                // The node's record can still be written.
                Err(problem) if self.problem.as_ref() != Some(&problem) => {
                    self.problem = Some(problem.clone());
                    return Some(ClaimStep::NoSubnet(problem));
                }
                Err(_) => {}
            }
        } else if short.is_none() {
            self.problem = None;
        }
        if context.busy.contains(&Paced::Node) {
            return None;
        }
        Some(ClaimStep::Commit(Purpose::Node, writer.node(context.unix)?))
    }

    /// Writes the node's record, whatever else is to be written; `None`: it is right.
    pub(super) fn write_node(&self, view: &View, unix: u64) -> Option<ClaimStep> {
        let attrs = self.attrs.as_ref()?;
        let Some(lease) = self.lease else { return Some(self.get_lease(view)) };
        let writer = Writer { view, me: &self.me, attrs, lease };
        Some(ClaimStep::Commit(Purpose::Node, writer.node(unix)?))
    }

    /// Forgets everything that another machine with this node's id has.
    pub(super) fn forget_all(&mut self) {
        self.held.clear();
        self.leaving.clear();
        self.preferred.clear();
        self.past.clear();
        self.overwritten.clear();
        (self.attrs, self.lease, self.trying, self.problem) = (None, None, None, None);
        self.wanted = self.wanted.min(1);
    }

    /// The lease that its keys are bound to, else a new one.
    fn get_lease(&self, view: &View) -> ClaimStep {
        let node = view.nodes.get(&self.me.id).map(|n| n.bound);
        let owners = view.owners.values().filter(|o| self.claimant().owns(o)).map(|o| o.bound);
        let bound = node.into_iter().chain(owners);
        let mut candidates = bound.filter(|id| *id != 0 && !self.ended.contains(id));
        candidates.next().map_or(ClaimStep::Grant, ClaimStep::Try)
    }

    /// Removes one of its keys for subnets that it does not hold.
    fn release(&self, context: &ClaimContext<'_>) -> Option<ClaimStep> {
        let view = context.view;
        let mine = view.owners.iter().filter(|(_, owner)| self.claimant().owns(owner));
        for (name, owner) in mine {
            let is_due = |s: &Subnets| {
                !self.held.contains_key(s) && !context.busy.contains(&Paced::Subnets(*s))
            };
            let Some(subnets) = owner.subnets.filter(is_due) else { continue };
            let with_lease = match self.claimant().ownership(view, &subnets, true) {
                Ownership::Overwritten(_) => false,
                Ownership::Outranked(_) => true,
                _ if self.leaving.contains(&subnets) => {
                    if context.on_disk.contains_key(&subnets) {
                        continue;
                    }
                    true
                }
                // Its lease was removed by hand before the node knew of it.
                _ if !view.leases.contains_key(name)
                    && view.at(Part::Flannel) >= Some(owner.modified) =>
                {
                    false
                }
                _ => continue,
            };
            let txn = writes::release(view, name, with_lease);
            return Some(ClaimStep::Commit(Purpose::Release(subnets), txn));
        }
        None
    }

    /// Forgets what has been given back. Whether there was any.
    pub(super) fn forget_left(&mut self, view: &View) -> bool {
        let before = self.leaving.len();
        let id = &self.me.id;
        self.leaving.retain(|subnets| {
            let owner = view.owners.get(&flannel::key::name(subnets));
            owner.is_some_and(|o| o.record.as_ref().is_ok_and(|r| r.id == *id))
        });
        self.leaving.len() != before
    }
}
