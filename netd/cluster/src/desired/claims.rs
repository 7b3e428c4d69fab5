//! Who has which subnet, and which MAC or key leads where: what two leases can't both say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
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

/// A lease's place in the order of leases.
pub(super) type Rank = u64;

/// What leads to one place only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Vtep(IfName, Mac),
    Wireguard(IfName, [u8; 32]),
}

/// Where it leads; a VTEP has no port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(IpAddr, Option<u16>);

/// What one lease claims.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    subnets: Vec<IpNet>,
    names: Vec<(Name, Place)>,
}

impl Claimed {
    /// Of a lease that takes this.
    pub(super) fn new(subnets: impl Iterator<Item = IpNet>, plan: &PeerPlan) -> Self {
        let vteps = plan.objects.iter().filter_map(|object| match object {
            OverlayObject::Fdb { device, mac, remote } => {
                Some((Name::Vtep(device.clone(), *mac), Place(*remote, None)))
            }
            _ => None,
        });
        let keys = plan.tunnels.iter().filter_map(|peer| match peer {
            TunnelPeer::Wireguard(device, peer) => {
                let place = Place(peer.endpoint.ip(), Some(peer.endpoint.port()));
                Some((Name::Wireguard(device.clone(), peer.public_key), place))
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
    Name { name: Name, place: Place, other: Place },
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
            Self::Name { name: Name::Vtep(_, mac), place, other } => PeerProblem::new(
                "BackendData.VtepMAC",
                format!(
                    "{mac} is at {place} here and at {other} in {holder}, which was there \
                     before; give one of the nodes another MAC"
                ),
            ),
            Self::Name { name: Name::Wireguard(..), place, other } => PeerProblem::new(
                "BackendData.PublicKey",
                format!(
                    "the same key is at {place} here and at {other} in {holder}, which was \
                     there before; give one of the nodes another key"
                ),
            ),
        }
    }
}

impl std::fmt::Display for Place {
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

/// What is claimed by the leases in force. Their subnets don't overlap.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By first address; IPv4 before IPv6.
    subnets: BTreeMap<IpAddr, (IpNet, Rank)>,
    names: HashMap<Name, (Place, BTreeSet<Rank>)>,
}

impl Claims {
    /// Records what a lease claims; what is in its way is gone.
    pub(super) fn take(&mut self, rank: Rank, claimed: &Claimed) {
        for subnet in &claimed.subnets {
            self.subnets.insert(subnet.network(), (*subnet, rank));
        }
        for (name, place) in &claimed.names {
            let (_, holders) =
                self.names.entry(name.clone()).or_insert_with(|| (*place, BTreeSet::new()));
            holders.insert(rank);
        }
    }

    /// Forgets what a lease claims.
    pub(super) fn give_back(&mut self, rank: Rank, claimed: &Claimed) {
        for subnet in &claimed.subnets {
            if self.subnets.get(&subnet.network()).is_some_and(|(_, holder)| *holder == rank) {
                self.subnets.remove(&subnet.network());
            }
        }
        for (name, _) in &claimed.names {
            if let Some((_, holders)) = self.names.get_mut(name) {
                holders.remove(&rank);
                if holders.is_empty() {
                    self.names.remove(name);
                }
            }
        }
    }

    /// The subnet that an address is of, and whose it is.
    pub(super) fn at(&self, ip: IpAddr) -> Option<(IpNet, Rank)> {
        let (_, (subnet, rank)) = self.subnets.range(..=ip).next_back()?;
        subnet.contains(&ip).then_some((*subnet, *rank))
    }

    /// Compares what a lease claims with what others have.
    pub(super) fn judge(&self, rank: Rank, claimed: &Claimed) -> Verdict {
        let mut later = BTreeSet::new();
        for (holder, conflict) in self.subnet_conflicts(claimed).chain(self.name_conflicts(claimed))
        {
            if holder < rank {
                return Verdict::Blocked { by: holder, conflict };
            }
            later.insert(holder);
        }
        Verdict::Free { later }
    }

    fn subnet_conflicts(&self, claimed: &Claimed) -> impl Iterator<Item = (Rank, Conflict)> {
        claimed.subnets.iter().flat_map(move |subnet| {
            let (first, last) = (subnet.network(), subnet.broadcast());
            let around = self.at(first).into_iter();
            let inside = self.subnets.range(first..=last).map(|(_, held)| *held);
            around
                .chain(inside)
                .map(move |(other, holder)| (holder, Conflict::Subnet { subnet: *subnet, other }))
        })
    }

    fn name_conflicts(&self, claimed: &Claimed) -> impl Iterator<Item = (Rank, Conflict)> {
        claimed.names.iter().flat_map(move |(name, place)| {
            let there = self.names.get(name).filter(|(other, _)| other != place);
            there.into_iter().flat_map(move |(other, holders)| {
                holders.iter().map(move |holder| {
                    let (name, place, other) = (name.clone(), *place, *other);
                    (*holder, Conflict::Name { name, place, other })
                })
            })
        })
    }
}
