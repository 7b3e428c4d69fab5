//! Compares the overlay's neighbours, forwarding entries and routes with the wanted ones.
//! Pure.
//!
//! The kernel has one neighbour for an address, one forwarding entry for a MAC and one
//! route for a destination and a metric: those are the keys. Setting an entry replaces
//! what its key has.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use ipnet::IpNet;

use crate::netlink::{
    entry::{BOOT_PROTOCOL, HeldRoute, KernelHop, OverlayEntry},
    link::read_mac,
};
use netd_domain::{
    IfName,
    overlay::{Hop, METRIC_BASE, OverlayObject, OverlayRoute},
};

/// A set of objects by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Objects {
    pub neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    pub fdb: HashMap<(u32, [u8; 6]), IpAddr>,
    /// By destination and metric; with the MTU.
    pub routes: HashMap<(IpNet, u32), (KernelHop, Option<u32>)>,
}

impl Objects {
    /// Adds an entry; what its key had before.
    pub(crate) fn put(&mut self, entry: &OverlayEntry) -> Option<OverlayEntry> {
        match *entry {
            OverlayEntry::Neighbour { link, ip, mac } => {
                let old = self.neighbours.insert((link, ip), mac);
                old.map(|mac| OverlayEntry::Neighbour { link, ip, mac })
            }
            OverlayEntry::Fdb { link, mac, remote } => {
                let old = self.fdb.insert((link, mac), remote);
                old.map(|remote| OverlayEntry::Fdb { link, mac, remote })
            }
            OverlayEntry::Route(route) => {
                let key = (route.destination, route.metric);
                let old = self.routes.insert(key, (route.hop, route.mtu));
                old.map(|(hop, mtu)| OverlayEntry::Route(HeldRoute { hop, mtu, ..route }))
            }
        }
    }

    /// Removes an entry if its key has just that; `false`: it has another one, or none.
    pub(crate) fn remove_exact(&mut self, entry: &OverlayEntry) -> bool {
        match *entry {
            OverlayEntry::Neighbour { link, ip, mac } => {
                take(&mut self.neighbours, (link, ip), mac)
            }
            OverlayEntry::Fdb { link, mac, remote } => take(&mut self.fdb, (link, mac), remote),
            OverlayEntry::Route(HeldRoute { destination, metric, hop, mtu, .. }) => {
                take(&mut self.routes, (destination, metric), (hop, mtu))
            }
        }
    }

    /// Whether the entry's key has something else.
    pub(crate) fn holds_another(&self, entry: &OverlayEntry) -> bool {
        match entry {
            OverlayEntry::Neighbour { link, ip, mac } => {
                self.neighbours.get(&(*link, *ip)).is_some_and(|m| m != mac)
            }
            OverlayEntry::Fdb { link, mac, remote } => {
                self.fdb.get(&(*link, *mac)).is_some_and(|r| r != remote)
            }
            OverlayEntry::Route(route) => {
                let held = self.routes.get(&(route.destination, route.metric));
                held.is_some_and(|held| *held != (route.hop, route.mtu))
            }
        }
    }
}

fn take<K: Hash + Eq, V: PartialEq>(map: &mut HashMap<K, V>, key: K, value: V) -> bool {
    let same = map.get(&key) == Some(&value);
    if same {
        map.remove(&key);
    }
    same
}

/// The metric that our route to a destination has.
pub(crate) fn metric_of(destination: IpNet) -> u32 {
    OverlayRoute { destination, hop: Hop::Blackhole, mtu: None }.metric()
}

/// Whether a route of netd's protocol is the overlay's: pods' routes have other metrics.
pub(crate) fn is_overlay_metric(metric: u32) -> bool {
    const RANGE: u32 = 0x1_0000;
    (METRIC_BASE..METRIC_BASE + RANGE).contains(&metric)
}

/// An object by interface index; the missing device's name if there is none.
pub(crate) fn resolve<'a>(
    object: &'a OverlayObject,
    links: &HashMap<IfName, u32>,
) -> Result<OverlayEntry, &'a IfName> {
    let find = |name: &'a IfName| links.get(name).copied().ok_or(name);
    Ok(match object {
        OverlayObject::Neighbour { device, ip, mac } => {
            OverlayEntry::Neighbour { link: find(device)?, ip: *ip, mac: mac.bytes() }
        }
        OverlayObject::Fdb { device, mac, remote } => {
            OverlayEntry::Fdb { link: find(device)?, mac: mac.bytes(), remote: *remote }
        }
        OverlayObject::Route(route) => {
            let hop = match &route.hop {
                Hop::Device(device) => KernelHop::Link(find(device)?),
                Hop::Via { gateway, device, onlink } => {
                    KernelHop::Via { gateway: *gateway, link: find(device)?, onlink: *onlink }
                }
                Hop::Blackhole => KernelHop::Nowhere,
            };
            let destination = route.destination.trunc();
            OverlayEntry::Route(HeldRoute::ours(
                destination,
                metric_of(destination),
                hop,
                route.mtu,
            ))
        }
    })
}

/// The device that an object needs.
pub(crate) fn device_of(object: &OverlayObject) -> Option<&IfName> {
    match object {
        OverlayObject::Neighbour { device, .. } | OverlayObject::Fdb { device, .. } => Some(device),
        OverlayObject::Route(route) => match &route.hop {
            Hop::Device(device) | Hop::Via { device, .. } => Some(device),
            Hop::Blackhole => None,
        },
    }
}

/// The object that an entry was made from; `None` for one that could not be ours.
pub(crate) fn object_of(
    entry: &OverlayEntry,
    names: &HashMap<u32, IfName>,
) -> Option<OverlayObject> {
    let name = |link: u32| names.get(&link).cloned();
    Some(match entry {
        OverlayEntry::Neighbour { link, ip, mac } => {
            OverlayObject::Neighbour { device: name(*link)?, ip: *ip, mac: read_mac(mac)? }
        }
        OverlayEntry::Fdb { link, mac, remote } => {
            OverlayObject::Fdb { device: name(*link)?, mac: read_mac(mac)?, remote: *remote }
        }
        OverlayEntry::Route(route) => {
            let hop = match route.hop {
                KernelHop::Nowhere => Hop::Blackhole,
                KernelHop::Link(link) => Hop::Device(name(link)?),
                KernelHop::Via { gateway, link, onlink } => {
                    Hop::Via { gateway, device: name(link)?, onlink }
                }
                KernelHop::Other => return None,
            };
            let (destination, mtu) = (route.destination, route.mtu);
            OverlayObject::Route(OverlayRoute { destination, hop, mtu })
        }
    })
}

/// Entries in the order in which they are set and removed: a route is set after the neighbour
/// and the forwarding entry that it needs, and removed before them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub set: Vec<OverlayEntry>,
    pub remove: Vec<OverlayEntry>,
}

/// The steps from `held` to `wanted`, which remove everything else in `held`. `foreign`:
/// routes of other programs; those that [`stands_before_ours`] names are removed as well.
pub(crate) fn diff(
    wanted: &Objects,
    held: &Objects,
    foreign: &[HeldRoute],
    overlay: &[u32],
) -> Plan {
    let mut plan = Plan::default();
    let neighbour =
        |(&(link, ip), &mac): (&(u32, IpAddr), &[u8; 6])| OverlayEntry::Neighbour { link, ip, mac };
    let fdb = |(&(link, mac), &remote): (&(u32, [u8; 6]), &IpAddr)| OverlayEntry::Fdb {
        link,
        mac,
        remote,
    };
    let route = |(&(to, metric), &(hop, mtu)): (&(IpNet, u32), &(KernelHop, Option<u32>))| {
        OverlayEntry::Route(HeldRoute::ours(to, metric, hop, mtu))
    };
    let (w, h) = (wanted, held);
    plan.set.extend(beyond(&w.neighbours, |k, v| h.neighbours.get(k) == Some(v)).map(neighbour));
    plan.set.extend(beyond(&w.fdb, |k, v| h.fdb.get(k) == Some(v)).map(fdb));
    plan.set.extend(beyond(&w.routes, |k, v| h.routes.get(k) == Some(v)).map(route));
    let shadows = foreign.iter().filter(|r| stands_before_ours(r, wanted, overlay));
    plan.remove.extend(shadows.map(|r| OverlayEntry::Route(*r)));
    plan.remove.extend(beyond(&h.routes, |k, _| w.routes.contains_key(k)).map(route));
    plan.remove.extend(beyond(&h.fdb, |k, _| w.fdb.contains_key(k)).map(fdb));
    plan.remove.extend(beyond(&h.neighbours, |k, _| w.neighbours.contains_key(k)).map(neighbour));
    plan
}

fn beyond<'a, K, V>(
    map: &'a HashMap<K, V>,
    known: impl Fn(&K, &V) -> bool + 'a,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    map.iter().filter(move |(key, value)| !known(key, value))
}

/// Whether another program's route is one that flannel left and that would win over ours:
/// flannel's have protocol `boot` and metric 0. One to a destination of ours over an
/// overlay device, or one that leads just where ours does (host-gw), is taken over: it
/// is removed once ours exists, so nothing is interrupted. Other routes are left alone.
pub(crate) fn stands_before_ours(route: &HeldRoute, wanted: &Objects, overlay: &[u32]) -> bool {
    let Some((hop, _)) = wanted.routes.get(&(route.destination, metric_of(route.destination)))
    else {
        return false;
    };
    let same = match (route.hop, *hop) {
        (KernelHop::Via { gateway, link, .. }, KernelHop::Via { gateway: ours, link: by, .. }) => {
            (gateway, link) == (ours, by)
        }
        (theirs, ours) => theirs == ours,
    };
    let on_overlay = route.hop.link().is_some_and(|link| overlay.contains(&link));
    route.protocol == BOOT_PROTOCOL && is_flannels_metric(route) && (same || on_overlay)
}

/// IPv6 routes that are made with metric 0 get 1024.
pub(super) fn is_flannels_metric(route: &HeldRoute) -> bool {
    const IPV6_DEFAULT: u32 = 1024;
    route.metric == if route.destination.addr().is_ipv4() { 0 } else { IPV6_DEFAULT }
}
