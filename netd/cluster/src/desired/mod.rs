//! The overlay state that this node needs, kept up to date lease by lease. Pure.
//!
//! Leases have an order, the same on every node: the one that was created first in etcd comes
//! first, and of two of one revision the one with the smaller key. A lease that contradicts an
//! earlier one which is in force is a problem and waits for that one to go; no other lease is
//! affected. So the outcome depends on the leases alone, not on how they came.

mod aggregate;
mod delta;
mod resources;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    Family, Lease, LeaseAttrs, Local, Subnets,
    backend::{Backend, Command, LocalPlan, PeerPlan, PeerProblem, backend},
};
use aggregate::{Aggregate, Changes};
pub use delta::Delta;
use netd_domain::{
    IfName,
    overlay::{OverlayState, TunnelPeer, WireguardPeer},
};
use netd_store::Revision;
use resources::{LeaseResources, Rank, ResourceIndex, Verdict};

/// Everything this node has to hold for the overlay.
#[derive(Debug)]
pub struct Desired {
    local: Local,
    backend: Box<dyn Backend>,
    plan: LocalPlan,
    entries: BTreeMap<Arc<str>, LeaseEntry>,
    resources: ResourceIndex,
    aggregate: Aggregate,
    /// Leases blocked by each lease.
    waiting: BTreeMap<Rank, BTreeSet<Rank>>,
    /// Values that could not be read; what the keys said before stays in force.
    refused: BTreeMap<Arc<str>, PeerProblem>,
}

#[derive(Debug)]
struct LeaseEntry {
    rank: Rank,
    lease: Arc<Lease>,
    state: LeaseState,
}

#[derive(Debug)]
enum LeaseState {
    /// One of this node's own.
    Own(Option<PeerProblem>),
    /// Routed to.
    InForce,
    /// Wrong in itself.
    Wrong(PeerProblem),
    /// Contradicts an earlier one.
    Waits { on: Rank, problem: PeerProblem },
}

/// The state of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState<'a> {
    /// One of this node's own.
    Own,
    /// Everything it takes is in the desired state.
    InForce,
    /// Nothing leads to its subnets.
    Problem(&'a PeerProblem),
}

/// A lease and its state.
#[derive(Debug, Clone, Copy)]
pub struct Peer<'a> {
    /// As last read.
    pub lease: &'a Lease,
    /// Its state.
    pub state: PeerState<'a>,
    /// Why the present value of its key can't be read; `lease` is what it said before.
    pub refused: Option<&'a PeerProblem>,
}

impl Desired {
    /// This node alone.
    ///
    /// # Errors
    /// What the backend misses on this node.
    pub fn new(local: Local) -> Result<Self, PeerProblem> {
        let backend = backend(&local.cluster.backend);
        let plan = backend.local(&local)?;
        let mut resources = ResourceIndex::default();
        for subnets in &local.subnets {
            resources.take(&Rank::OwnNode, &LeaseResources::of_node(subnets));
        }
        let aggregate = Aggregate::new(&plan.objects);
        Ok(Self {
            local,
            backend,
            plan,
            entries: BTreeMap::new(),
            resources,
            aggregate,
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
        })
    }

    /// The same leases for a node whose configuration, addresses or subnets are others now.
    /// To be followed by a full comparison with [`Desired::state`].
    ///
    /// # Errors
    /// What the backend misses on this node; what was in force still is.
    pub fn with_local(&self, local: Local) -> Result<Self, PeerProblem> {
        let mut new = Self::new(local)?;
        for (key, entry) in &self.entries {
            new.set(key, entry.rank.created(), entry.lease.clone());
        }
        new.refused.clone_from(&self.refused);
        Ok(new)
    }

    /// This node's facts.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// What this node takes, whoever its peers are.
    pub fn local_plan(&self) -> &LocalPlan {
        &self.plan
    }

    /// What peers have to know of this node.
    pub fn announce(&self) -> LeaseAttrs {
        self.backend.announce(&self.local)
    }

    /// The lease of this key (its name, what comes after `<prefix>/subnets/`) is now this
    /// one, claimed since the etcd revision `created`. The same again changes nothing.
    pub fn set(&mut self, key: &str, created: Revision, lease: impl Into<Arc<Lease>>) -> Delta {
        let lease: Arc<Lease> = lease.into();
        self.refused.remove(key);
        let is_same = |e: &LeaseEntry| e.lease == lease && e.rank.created() == created;
        if self.entries.get(key).is_some_and(is_same) {
            return Delta::default();
        }
        let mut changes = Changes::default();
        let mut due = self.take_out(key, &mut changes);
        let key: Arc<str> = Arc::from(key);
        let rank = Rank::Lease { created, key: key.clone() };
        let state = self.initial_state(&lease);
        if matches!(state, LeaseState::Waits { .. }) {
            due.insert(rank.clone());
        }
        self.entries.insert(key, LeaseEntry { rank, lease, state });
        self.settle(due, &mut changes);
        self.aggregate.delta(changes, self.local.kernel_wireguard)
    }

    /// The lease of this key is gone.
    pub fn remove(&mut self, key: &str) -> Delta {
        self.refused.remove(key);
        let mut changes = Changes::default();
        let due = self.take_out(key, &mut changes);
        self.settle(due, &mut changes);
        self.aggregate.delta(changes, self.local.kernel_wireguard)
    }

    /// The value of this key can't be read. What was known of the key stays in force.
    pub fn refuse(&mut self, key: &str, problem: PeerProblem) {
        self.refused.insert(Arc::from(key), problem);
    }

    /// Everything that is wrong with leases, by key; one problem a key.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &PeerProblem)> {
        let known = self.entries.iter().filter(|(key, _)| !self.refused.contains_key(*key));
        let known = known.filter_map(|(key, entry)| Some((&**key, entry.state.problem()?)));
        known.chain(self.refused.iter().map(|(key, problem)| (&**key, problem)))
    }

    /// What is known of a key.
    pub fn peer(&self, key: &str) -> Option<Peer<'_>> {
        let entry = self.entries.get(key)?;
        let state = match &entry.state {
            LeaseState::InForce => PeerState::InForce,
            LeaseState::Own(None) => PeerState::Own,
            other => other.problem().map_or(PeerState::Own, PeerState::Problem),
        };
        Some(Peer { lease: &entry.lease, state, refused: self.refused.get(key) })
    }

    /// Every key of which something is known, in their order by name.
    pub fn peers(&self) -> impl Iterator<Item = (&str, Peer<'_>)> {
        self.entries.keys().filter_map(|key| Some((&**key, self.peer(key)?)))
    }

    /// What a key's lease takes; `None`: nothing, it is not in force or not another node's.
    pub fn peer_plan(&self, key: &str) -> Option<PeerPlan> {
        let entry = self.entries.get(key)?;
        let in_force = matches!(entry.state, LeaseState::InForce);
        in_force.then(|| self.backend.peer(&self.local, &entry.lease).unwrap_or_default())
    }

    /// Whose subnet an address is of: one of those in force, or this node's own.
    pub fn lookup(&self, ip: IpAddr) -> Option<(&str, &Lease)> {
        let (subnet, rank) = self.resources.at(ip)?;
        let (key, entry) = match &rank {
            Rank::OwnNode => self.entries.get_key_value(self.own_key(subnet)?)?,
            Rank::Lease { key, .. } => self.entries.get_key_value(key)?,
        };
        Some((key, &entry.lease))
    }

    fn own_key(&self, subnet: IpNet) -> Option<&str> {
        let family = Family::of(subnet.addr());
        let own = self.local.subnets.iter().find(|s| s.of(family) == Some(subnet))?;
        let name = super::flannel::key::name(own);
        self.entries.get_key_value(name.as_str()).map(|(key, _)| &**key)
    }

    /// Everything the kernel has to hold.
    pub fn state(&self) -> OverlayState {
        let wireguard = self.wireguard();
        let (devices, objects) = (self.plan.devices.clone(), self.aggregate.objects().collect());
        let own = self.local.subnets.iter().flat_map(Subnets::iter).collect();
        OverlayState { devices, objects, wireguard, own, partial: false }
    }

    /// Every peer of the kernel's WireGuard devices.
    pub fn wireguard(&self) -> Vec<(IfName, WireguardPeer)> {
        if self.local.kernel_wireguard { self.aggregate.wireguard() } else { vec![] }
    }

    /// Every peer of the tunnel process's tunnels, merged by name.
    pub fn tunnels(&self) -> impl Iterator<Item = TunnelPeer> {
        let kernel = self.local.kernel_wireguard;
        let all = self.aggregate.tunnels();
        all.filter(move |peer| !(kernel && matches!(peer, TunnelPeer::Wireguard(..))))
    }

    /// The operator's commands about all leases in force.
    pub fn commands(&self) -> impl Iterator<Item = &Command> {
        self.aggregate.commands()
    }

    /// Takes a key's lease out; those that waited for it are due.
    fn take_out(&mut self, key: &str, changes: &mut Changes) -> BTreeSet<Rank> {
        let Some(entry) = self.entries.remove(key) else { return BTreeSet::new() };
        match entry.state {
            LeaseState::InForce => self.withdraw(&entry.rank, key, &entry.lease, changes),
            LeaseState::Waits { on, .. } => {
                self.stop_waiting(&entry.rank, &on);
                BTreeSet::new()
            }
            LeaseState::Own(_) | LeaseState::Wrong(_) => BTreeSet::new(),
        }
    }

    /// What a lease is, taken alone; one that could be in force waits to be settled.
    fn initial_state(&self, lease: &Lease) -> LeaseState {
        if self.local.subnets.contains(&lease.subnets) {
            return LeaseState::Own(self.check_own(lease).err());
        }
        let judged = self.check(lease).and_then(|()| self.backend.peer(&self.local, lease));
        match judged {
            Ok(_) => LeaseState::Waits {
                on: Rank::OwnNode,
                problem: PeerProblem::new("key", "not settled"),
            },
            Err(problem) => LeaseState::Wrong(problem),
        }
    }

    /// Checks that the cluster's networks contain a lease's subnets.
    fn check(&self, lease: &Lease) -> Result<(), PeerProblem> {
        let mut any = false;
        for family in self.local.cluster.families() {
            let (Some(subnet), Some(network)) =
                (lease.subnets.of(family), self.local.cluster.network(family))
            else {
                continue;
            };
            if !network.contains(&subnet) {
                let problem = format!("{subnet} is outside the cluster's network, {network}");
                return Err(PeerProblem::new("key", problem));
            }
            any = true;
        }
        let none = "no subnet of a family that the cluster has";
        if any { Ok(()) } else { Err(PeerProblem::new("key", none)) }
    }

    /// Checks that no other node has written this node's own lease.
    fn check_own(&self, lease: &Lease) -> Result<(), PeerProblem> {
        let announced = self.announce();
        for (family, field) in [(Family::V4, "PublicIP"), (Family::V6, "PublicIPv6")] {
            let (Some(ip), Some(own)) = (lease.attrs.public(family), announced.public(family))
            else {
                continue;
            };
            if ip != own && !lease.reservation {
                let problem = format!("{ip} claims this node's own subnet ({own} is this node)");
                return Err(PeerProblem::new(field, problem));
            }
        }
        Ok(())
    }

    /// What a lease claims, given what it takes.
    fn resources_of(&self, lease: &Lease, plan: &PeerPlan) -> LeaseResources {
        let has = |family| self.local.cluster.network(family).is_some();
        LeaseResources::new(lease.subnets.iter().filter(|s| has(Family::of(s.addr()))), plan)
    }

    /// Brings every lease that is due into force or has it wait, in their order. Only
    /// later ones become due on the way: this ends.
    fn settle(&mut self, mut due: BTreeSet<Rank>, changes: &mut Changes) {
        while let Some(rank) = due.pop_first() {
            let Rank::Lease { key, .. } = &rank else { continue };
            let Some(entry) = self.entries.get(key) else { continue };
            let lease = entry.lease.clone();
            // It was judged when it was set: the backend takes it.
            let plan = self.backend.peer(&self.local, &lease).unwrap_or_default();
            let resources = self.resources_of(&lease, &plan);
            let state = match self.resources.judge(&rank, &resources) {
                Verdict::Blocked { by, conflict } => {
                    self.waiting.entry(by.clone()).or_default().insert(rank.clone());
                    let problem = conflict.problem(by.key());
                    LeaseState::Waits { on: by, problem }
                }
                Verdict::Free { later } => {
                    for loser in later {
                        due.extend(self.evict(&loser, changes));
                    }
                    self.resources.take(&rank, &resources);
                    self.aggregate.add(key, &plan, changes);
                    LeaseState::InForce
                }
            };
            if let Some(entry) = self.entries.get_mut(key) {
                entry.state = state;
            }
        }
    }

    /// Takes a later lease out of force for an earlier one.
    fn evict(&mut self, rank: &Rank, changes: &mut Changes) -> BTreeSet<Rank> {
        let Some(key) = rank.key() else { return BTreeSet::new() };
        let Some(lease) = self.entries.get(key).map(|e| e.lease.clone()) else {
            return BTreeSet::new();
        };
        let mut due = self.withdraw(rank, key, &lease, changes);
        due.insert(rank.clone());
        due
    }

    fn withdraw(
        &mut self,
        rank: &Rank,
        key: &str,
        lease: &Lease,
        changes: &mut Changes,
    ) -> BTreeSet<Rank> {
        let plan = self.backend.peer(&self.local, lease).unwrap_or_default();
        self.resources.give_back(rank, &self.resources_of(lease, &plan));
        self.aggregate.remove(key, &plan, changes);
        self.waiting.remove(rank).unwrap_or_default()
    }

    fn stop_waiting(&mut self, rank: &Rank, on: &Rank) {
        if let Some(all) = self.waiting.get_mut(on) {
            all.remove(rank);
            if all.is_empty() {
                self.waiting.remove(on);
            }
        }
    }
}

impl LeaseState {
    fn problem(&self) -> Option<&PeerProblem> {
        match self {
            Self::InForce | Self::Own(None) => None,
            Self::Own(Some(problem)) | Self::Wrong(problem) | Self::Waits { problem, .. } => {
                Some(problem)
            }
        }
    }
}
