//! The objects of all leases in force, counted, and their tunnel peers, merged by name.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::delta::Delta;
use crate::backend::{Command, PeerCommands, PeerPlan};
use netd_domain::{
    IfName,
    overlay::{OverlayObject, TunnelPeer, TunnelPeerName, WireguardPeer},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Aggregate {
    objects: HashMap<OverlayObject, u32>,
    tunnels: BTreeMap<TunnelPeerName, Merged>,
    commands: BTreeMap<Arc<str>, PeerCommands>,
}

/// A node's peer, of all its leases.
#[derive(Debug)]
struct Merged {
    peer: TunnelPeer,
    subnets: BTreeMap<IpNet, u32>,
}

impl Merged {
    fn peer(&self) -> TunnelPeer {
        self.peer.clone().with_subnets(self.subnets.keys().copied().collect())
    }
}

/// The state before a change of everything that the change touches.
#[derive(Debug, Default)]
pub(super) struct Changes {
    objects: HashMap<OverlayObject, bool>,
    tunnels: BTreeMap<TunnelPeerName, Option<TunnelPeer>>,
    commands: BTreeMap<Arc<str>, Option<PeerCommands>>,
}

impl Aggregate {
    /// With what this node takes in any case.
    pub(super) fn new(local: &[OverlayObject]) -> Self {
        let mut aggregate = Self::default();
        for object in local {
            *aggregate.objects.entry(object.clone()).or_default() += 1;
        }
        aggregate
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = OverlayObject> {
        self.objects.keys().cloned()
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = TunnelPeer> {
        self.tunnels.values().map(Merged::peer)
    }

    pub(super) fn wireguard(&self) -> Vec<(IfName, WireguardPeer)> {
        let only = |peer| match peer {
            TunnelPeer::Wireguard(device, peer) => Some((device, peer)),
            TunnelPeer::Udp(..) => None,
        };
        self.tunnels().filter_map(only).collect()
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = &Command> {
        self.commands.values().filter_map(|c| c.add.as_ref())
    }

    /// Adds a lease that comes into force.
    pub(super) fn add(&mut self, key: &Arc<str>, plan: &PeerPlan, changes: &mut Changes) {
        for object in &plan.objects {
            let count = self.objects.entry(object.clone()).or_default();
            changes.objects.entry(object.clone()).or_insert(*count > 0);
            *count += 1;
        }
        for peer in &plan.tunnels {
            let name = peer.name();
            self.note_tunnel(&name, changes);
            let fresh = || Merged { peer: peer.clone(), subnets: BTreeMap::new() };
            let merged = self.tunnels.entry(name).or_insert_with(fresh);
            for subnet in peer.subnets() {
                *merged.subnets.entry(*subnet).or_default() += 1;
            }
        }
        if let Some(commands) = &plan.commands {
            changes.commands.entry(key.clone()).or_insert(None);
            self.commands.insert(key.clone(), commands.clone());
        }
    }

    /// Removes a lease that is no longer in force.
    pub(super) fn remove(&mut self, key: &str, plan: &PeerPlan, changes: &mut Changes) {
        for object in &plan.objects {
            let Some(count) = self.objects.get_mut(object) else { continue };
            changes.objects.entry(object.clone()).or_insert(true);
            *count -= 1;
            if *count == 0 {
                self.objects.remove(object);
            }
        }
        for peer in &plan.tunnels {
            let name = peer.name();
            self.note_tunnel(&name, changes);
            let Some(merged) = self.tunnels.get_mut(&name) else { continue };
            for subnet in peer.subnets() {
                if let Some(count) = merged.subnets.get_mut(subnet) {
                    *count -= 1;
                }
            }
            merged.subnets.retain(|_, count| *count > 0);
            if merged.subnets.is_empty() {
                self.tunnels.remove(&name);
            }
        }
        if let Some((key, commands)) = self.commands.remove_entry(key) {
            changes.commands.entry(key).or_insert(Some(commands));
        }
    }

    fn note_tunnel(&self, name: &TunnelPeerName, changes: &mut Changes) {
        if !changes.tunnels.contains_key(name) {
            let before = self.tunnels.get(name).map(Merged::peer);
            changes.tunnels.insert(name.clone(), before);
        }
    }

    /// The difference to the state before the changes.
    pub(super) fn delta(&self, changes: Changes, kernel_wireguard: bool) -> Delta {
        let mut delta = Delta::default();
        for (object, before) in changes.objects {
            match (before, self.objects.contains_key(&object)) {
                (false, true) => delta.kernel.add.push(object),
                (true, false) => delta.kernel.remove.push(object),
                _ => {}
            }
        }
        delta.kernel.add.sort_unstable();
        delta.kernel.remove.sort_unstable();
        let replaced: HashSet<_> = delta.kernel.add.iter().filter_map(slot).collect();
        delta.kernel.remove.retain(|o| slot(o).is_none_or(|slot| !replaced.contains(&slot)));
        for (name, before) in changes.tunnels {
            let now = self.tunnels.get(&name).map(Merged::peer);
            if now != before {
                tunnel_delta(&mut delta, name, now, kernel_wireguard);
            }
        }
        for (key, before) in changes.commands {
            let now = self.commands.get(&key);
            if now != before.as_ref() {
                delta.commands.extend(before.and_then(|c| c.remove));
                delta.commands.extend(now.and_then(|c| c.add.clone()));
            }
        }
        delta
    }
}

fn tunnel_delta(delta: &mut Delta, name: TunnelPeerName, now: Option<TunnelPeer>, kernel: bool) {
    match (name, now) {
        (_, Some(TunnelPeer::Wireguard(device, peer))) if kernel => {
            delta.kernel.set_wireguard.push((device, peer));
        }
        (TunnelPeerName::Wireguard(device, key), None) if kernel => {
            delta.kernel.remove_wireguard.push((device, key));
        }
        (_, Some(peer)) => delta.tunnels_set.push(peer),
        (name, None) => delta.tunnels_removed.push(name),
    }
}

/// What the kernel has one of: of these an object replaces another.
#[derive(PartialEq, Eq, Hash)]
enum Slot {
    Neighbour(IfName, IpAddr),
    Route(IpNet),
}

fn slot(object: &OverlayObject) -> Option<Slot> {
    match object {
        OverlayObject::Neighbour { device, ip, .. } => Some(Slot::Neighbour(device.clone(), *ip)),
        OverlayObject::Route(route) => Some(Slot::Route(route.destination)),
        OverlayObject::Fdb { .. } => None,
    }
}
