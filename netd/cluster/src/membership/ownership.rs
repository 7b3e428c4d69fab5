//! Which node owns a subnet, seen from this one. Pure.
//!
//! Compare-and-swap keeps two nodes from writing one key. It can't keep them from
//! writing two keys that overlap (another `SubnetLen`, one IPv4 subnet in two dual-stack
//! pairs). So of two claims that overlap the older one counts: a node uses a subnet only
//! after its view has reached its own claim, and so holds every older one.

use std::{mem::discriminant, net::IpAddr};

use ipnet::IpNet;

use super::view::{LeaseKey, OwnerKey, View};
use crate::{
    Family, LeaseAttrs, Subnets,
    flannel::{
        self,
        value::{VxlanData, WireguardData},
    },
};
use netd_domain::Mac;
use netd_store::Revision;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ownership {
    /// This node's; its keys may have to be written again.
    Mine,
    /// No node has it.
    Free,
    /// Written by flannel on this node, or reserved for it; no netd node has it.
    Takeover,
    /// Another node's: whose.
    Taken(String),
    /// This node's, but a writer that ignores netd's keys (a flannel node, a person) wrote
    /// the lease: which.
    Overwritten(String),
    /// This node's, but it overlaps with an older claim: which.
    Outranked(String),
}

/// The node that asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimant<'a> {
    /// The node's id.
    pub id: &'a str,
    /// What it announces; tells whether a flannel lease is its own.
    pub attrs: Option<&'a LeaseAttrs>,
    /// What it announced before: a write of its own may become visible late.
    pub past: &'a [LeaseAttrs],
}

impl Claimant<'_> {
    /// Whether it is the owner.
    pub(super) fn owns(&self, owner: &OwnerKey) -> bool {
        owner.record.as_ref().is_ok_and(|r| r.id == self.id)
    }

    /// Whether the lease names this node's addresses: one is equal and none differs.
    pub(super) fn is_at(&self, key: &LeaseKey) -> bool {
        let Ok(lease) = &key.lease else { return false };
        self.attrs.is_some_and(|own| is_same_node(own, &lease.attrs))
    }

    /// Whether the lease names addresses that this node never had, or a MAC or key that it
    /// never had: its address may be another machine's by now.
    fn is_elsewhere(&self, key: &LeaseKey) -> bool {
        let Ok(lease) = &key.lease else { return false };
        let own = || self.attrs.into_iter().chain(self.past);
        let known: Vec<_> = own().flat_map(identifiers).collect();
        let is_foreign = |id: &Identifier| {
            !known.contains(id) && known.iter().any(|own| discriminant(own) == discriminant(id))
        };
        self.attrs.is_some()
            && (!own().any(|own| is_same_node(own, &lease.attrs))
                || identifiers(&lease.attrs).any(|id| is_foreign(&id)))
    }

    /// Who owns `subnets`. `known`: the node had them before, or was configured to have them.
    pub(super) fn ownership(&self, view: &View, subnets: &Subnets, known: bool) -> Ownership {
        let name = flannel::key::name(subnets);
        let (lease, owner) = (view.leases.get(&name), view.owners.get(&name));
        let rival = || self.rival(view, &name, subnets);
        let mine = || rival().map_or(Ownership::Mine, Ownership::Outranked);
        match (lease, owner) {
            (None, None) => rival().map_or(Ownership::Free, Ownership::Taken),
            (None, Some(o)) if self.owns(o) || o.record.is_err() => mine(),
            (Some(l), Some(o)) if self.owns(o) => match is_touched(l, o) && self.is_elsewhere(l) {
                true => Ownership::Overwritten(who(l)),
                false => mine(),
            },
            // Only the lease can tell whose it is.
            (Some(l), Some(o)) if o.record.is_err() && known && self.is_at(l) => mine(),
            (Some(l), None) if self.is_at(l) && (known || l.bound == 0) => {
                rival().map_or(Ownership::Takeover, Ownership::Taken)
            }
            (_, Some(o)) => Ownership::Taken(owned_by(o)),
            (Some(l), None) => Ownership::Taken(who(l)),
        }
    }

    /// An older claim of another node that overlaps.
    fn rival(&self, view: &View, name: &str, subnets: &Subnets) -> Option<String> {
        let age = view.claimed_since(name).map_or((Revision::MAX, name), |at| (at, name));
        let outranks = |other: &str, theirs: &Subnets| {
            other != name
                && overlap(subnets, theirs)
                && view.owners.get(other).is_none_or(|o| !self.owns(o))
                && view.claimed_since(other).is_some_and(|at| (at, other) < age)
        };
        let leases = view.leases.iter().filter_map(|(n, l)| Some((n, l.subnets.as_ref().ok()?)));
        let owners = view.owners.iter().filter_map(|(n, o)| Some((n, o.subnets.as_ref()?)));
        let (other, _) = leases.chain(owners).find(|(n, s)| outranks(n, s))?;
        let whose = match (view.owners.get(other), view.leases.get(other)) {
            (Some(o), _) => owned_by(o),
            (None, Some(l)) => who(l),
            (None, None) => "nobody".to_owned(),
        };
        Some(format!("{whose}, as part of {other}"))
    }
}

/// What only one node has.
#[derive(Debug, PartialEq, Eq)]
enum Identifier {
    Vtep(Mac),
    Wireguard([u8; 32]),
}

/// All that a value names; what can't be read names none.
fn identifiers(attrs: &LeaseAttrs) -> impl Iterator<Item = Identifier> {
    Family::ALL.into_iter().flat_map(|family| {
        let vtep = VxlanData::read(attrs, family).ok().map(|data| Identifier::Vtep(data.mac));
        let key = WireguardData::read(attrs, family).ok();
        vtep.into_iter().chain(key.map(|data| Identifier::Wireguard(data.public_key)))
    })
}

/// Whether one address is equal and none differs.
pub(super) fn is_same_node(own: &LeaseAttrs, attrs: &LeaseAttrs) -> bool {
    fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
        a.zip(b).map(|(a, b)| a == b)
    }
    let v4 = same(own.public_v4, attrs.public_v4);
    let v6 = same(own.public_v6, attrs.public_v6);
    [v4, v6].contains(&Some(true)) && ![v4, v6].contains(&Some(false))
}

/// Whether the lease was written after its owner key. (An owner key that is newer is
/// one whose lease is about to become visible.)
pub(super) fn is_touched(lease: &LeaseKey, owner: &OwnerKey) -> bool {
    let reserved = owner.record.as_ref().ok().and_then(|r| r.reserved);
    lease.modified > owner.modified && reserved != Some(lease.modified)
}

/// Whether they have an address in common.
pub fn overlap(a: &Subnets, b: &Subnets) -> bool {
    let v4 = a.v4.zip(b.v4).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a));
    v4 || a.v6.zip(b.v6).is_some_and(|(a, b)| a.contains(&b) || b.contains(&a))
}

fn owned_by(owner: &OwnerKey) -> String {
    match &owner.record {
        Ok(record) => format!("node {} (id {})", record.node, record.id),
        Err(why) => format!("an owner that can't be read ({why})"),
    }
}

/// The owner that a lease names.
fn who(key: &LeaseKey) -> String {
    let what = if key.bound == 0 { "a reservation" } else { "a lease" };
    match &key.lease {
        Ok(lease) => {
            let v4 = lease.attrs.public_v4.map(IpAddr::V4);
            let ips = v4.into_iter().chain(lease.attrs.public_v6.map(IpAddr::V6));
            let ips: Vec<_> = ips.map(|ip| ip.to_string()).collect();
            format!("{what} of PublicIP {}", ips.join(", "))
        }
        Err(why) => format!("{what} that can't be read ({why})"),
    }
}

/// The address that a name begins with, whatever follows it.
pub(super) fn address_in(name: &str) -> impl Iterator<Item = IpAddr> {
    name.split('&').filter_map(|part| part.split(['-', '/']).next()?.parse().ok())
}

/// Whether `net` is one of the cluster's.
pub(super) fn is_inside(networks: impl Iterator<Item = IpNet>, net: IpNet) -> bool {
    let mut networks = networks;
    networks.any(|n| n.contains(&net))
}
