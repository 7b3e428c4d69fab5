//! The subnets, MAC addresses and keys that each lease claims, and which claims contradict
//! each other.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    Subnets,
    backend::{PeerPlan, PeerProblem},
};
use netd_domain::{
    IfName, Mac,
    overlay::{OverlayObject, TunnelPeer},
};
use netd_store::Revision;

/// A claim's place in the order of claims: the smaller one comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// This node's own, before every lease.
    OwnNode,
    /// A lease, claimed since this revision.
    Lease { created: Revision, key: Arc<str> },
}

impl Rank {
    pub(super) fn key(&self) -> Option<&str> {
        match self {
            Self::OwnNode => None,
            Self::Lease { key, .. } => Some(key),
        }
    }

    /// The revision since which it is claimed; this node's own counts as the first.
    pub(super) fn created(&self) -> Revision {
        match self {
            Self::OwnNode => Revision::MIN,
            Self::Lease { created, .. } => *created,
        }
    }
}

/// An identifier that can lead to one address only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Identifier {
    Vtep(IfName, Mac),
    Wireguard(IfName, [u8; 32]),
}

/// Where it leads; a VTEP has no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location(IpAddr, Option<u16>);

/// What one lease claims.
#[derive(Debug, Default)]
pub(super) struct LeaseResources {
    subnets: Vec<IpNet>,
    names: Vec<(Identifier, Location)>,
}

impl LeaseResources {
    /// Of a lease that takes this.
    pub(super) fn new(subnets: impl Iterator<Item = IpNet>, plan: &PeerPlan) -> Self {
        let vteps = plan.objects.iter().filter_map(|object| match object {
            OverlayObject::Fdb { device, mac, remote } => {
                Some((Identifier::Vtep(device.clone(), *mac), Location(*remote, None)))
            }
            _ => None,
        });
        let keys = plan.tunnels.iter().filter_map(|peer| match peer {
            TunnelPeer::Wireguard(device, peer) => {
                let location = Location(peer.endpoint.ip(), Some(peer.endpoint.port()));
                Some((Identifier::Wireguard(device.clone(), peer.public_key), location))
            }
            TunnelPeer::Udp(..) => None,
        });
        Self { subnets: subnets.collect(), names: vteps.chain(keys).collect() }
    }

    /// Of this node.
    pub(super) fn of_node(subnets: &Subnets) -> Self {
        Self { subnets: subnets.iter().collect(), names: vec![] }
    }
}

/// What two leases both claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conflict {
    Subnet { subnet: IpNet, other: IpNet },
    Identifier { name: Identifier, location: Location, other: Location },
}

impl Conflict {
    /// As it is shown; `holder` is the earlier lease's key, none that of this node.
    pub(super) fn problem(&self, holder: Option<&str>) -> PeerProblem {
        let holder = holder.map_or_else(|| "this node".to_owned(), |key| format!("lease {key}"));
        match self {
            Self::Subnet { subnet, other } => PeerProblem::new(
                "key",
                format!(
                    "{subnet} overlaps {other} of {holder}, which was there before; remove one"
                ),
            ),
            Self::Identifier { name: Identifier::Vtep(_, mac), location, other } => {
                PeerProblem::new(
                    "BackendData.VtepMAC",
                    format!(
                        "{mac} is at {location} here and at {other} in {holder}, which was there \
                     before; give one of the nodes another MAC"
                    ),
                )
            }
            Self::Identifier { name: Identifier::Wireguard(..), location, other } => {
                PeerProblem::new(
                    "BackendData.PublicKey",
                    format!(
                        "the same key is at {location} here and at {other} in {holder}, which was \
                     there before; give one of the nodes another key"
                    ),
                )
            }
        }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.1 {
            Some(port) => SocketAddr::new(self.0, port).fmt(f),
            None => self.0.fmt(f),
        }
    }
}

/// Whether a lease can be in force.
#[derive(Debug)]
pub(super) enum Verdict {
    /// An earlier one is in the way.
    Blocked { by: Rank, conflict: Conflict },
    /// Yes, without these later ones.
    Free { later: BTreeSet<Rank> },
}

/// What the leases in force claim. Their subnets don't overlap.
#[derive(Debug, Default)]
pub(super) struct ResourceIndex {
    /// By first address; IPv4 before IPv6.
    subnets: BTreeMap<IpAddr, (IpNet, Rank)>,
    names: HashMap<Identifier, (Location, BTreeSet<Rank>)>,
}

impl ResourceIndex {
    /// Records what a lease claims; what is in its way is gone.
    pub(super) fn take(&mut self, rank: &Rank, resources: &LeaseResources) {
        for subnet in &resources.subnets {
            self.subnets.insert(subnet.network(), (*subnet, rank.clone()));
        }
        for (name, location) in &resources.names {
            let (_, holders) =
                self.names.entry(name.clone()).or_insert_with(|| (*location, BTreeSet::new()));
            holders.insert(rank.clone());
        }
    }

    /// Forgets what a lease claims.
    pub(super) fn give_back(&mut self, rank: &Rank, resources: &LeaseResources) {
        for subnet in &resources.subnets {
            if self.subnets.get(&subnet.network()).is_some_and(|(_, holder)| holder == rank) {
                self.subnets.remove(&subnet.network());
            }
        }
        for (name, _) in &resources.names {
            if let Some((_, holders)) = self.names.get_mut(name) {
                holders.remove(rank);
                if holders.is_empty() {
                    self.names.remove(name);
                }
            }
        }
    }

    /// The subnet that an address is of, and whose it is.
    pub(super) fn at(&self, ip: IpAddr) -> Option<(IpNet, Rank)> {
        let (_, (subnet, rank)) = self.subnets.range(..=ip).next_back()?;
        subnet.contains(&ip).then(|| (*subnet, rank.clone()))
    }

    /// Compares what a lease claims with what others have.
    pub(super) fn judge(&self, rank: &Rank, resources: &LeaseResources) -> Verdict {
        let mut later = BTreeSet::new();
        for (holder, conflict) in
            self.subnet_conflicts(resources).chain(self.name_conflicts(resources))
        {
            if holder < *rank {
                return Verdict::Blocked { by: holder, conflict };
            }
            later.insert(holder);
        }
        Verdict::Free { later }
    }

    fn subnet_conflicts(
        &self,
        resources: &LeaseResources,
    ) -> impl Iterator<Item = (Rank, Conflict)> {
        resources.subnets.iter().flat_map(move |subnet| {
            let (first, last) = (subnet.network(), subnet.broadcast());
            let around = self.at(first).into_iter();
            let inside = self.subnets.range(first..=last).map(|(_, taken)| taken.clone());
            around
                .chain(inside)
                .map(move |(other, holder)| (holder, Conflict::Subnet { subnet: *subnet, other }))
        })
    }

    fn name_conflicts(&self, resources: &LeaseResources) -> impl Iterator<Item = (Rank, Conflict)> {
        resources.names.iter().flat_map(move |(name, location)| {
            let there = self.names.get(name).filter(|(other, _)| other != location);
            there.into_iter().flat_map(move |(other, holders)| {
                holders.iter().map(move |holder| {
                    let (name, location, other) = (name.clone(), *location, *other);
                    (holder.clone(), Conflict::Identifier { name, location, other })
                })
            })
        })
    }
}
