//! Which events mean that something of ours may be lost. Pure: knows only what earlier
//! events (and a dump at the start) said.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

use super::parse::{self, LinkEvent};
use crate::{
    dataplane::{Drift, naming::is_host_name, netlink::Received, parking::is_parked},
    domain::IfName,
};

/// Protocol number of our routes.
pub const OUR_PROTOCOL: u8 = 110;
const LOOPBACK: u32 = 1;
const ALL_LINKS: i32 = -1;

/// A link's settings as last heard of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    name: String,
    up: bool,
    mtu: u32,
    mac: [u8; 6],
    master: Option<u32>,
}

impl From<&LinkEvent> for Seen {
    fn from(e: &LinkEvent) -> Self {
        Self { name: e.name.clone(), up: e.up, mtu: e.mtu, mac: e.mac, master: e.master }
    }
}

impl Seen {
    /// Coming up, or becoming a port, is no loss.
    fn loses(&self, now: &Self) -> bool {
        (self.up && !now.up)
            || self.mtu != now.mtu
            || self.mac != now.mac
            || self.name != now.name
            || (self.master.is_some() && self.master != now.master)
    }
}

/// The host's end of an endpoint.
#[derive(Debug)]
struct HostSide {
    name: IfName,
    seen: Seen,
    /// Namespace id and index of the other end.
    pod: Option<(i32, u32)>,
    /// Addresses that our host routes lead to by this link.
    routes: Vec<IpAddr>,
}

/// The sandbox's end of an endpoint.
#[derive(Debug)]
struct PodSide {
    host: u32,
    /// Unknown for one that was there before us and that nothing was heard of yet.
    seen: Option<Seen>,
}

/// What is known of the links.
#[derive(Debug, Default)]
pub struct Table {
    hosts: HashMap<u32, HostSide>,
    pods: HashMap<(i32, u32), PodSide>,
    bridges: HashMap<u32, (IfName, Option<Seen>)>,
    routes: HashMap<IpAddr, u32>,
    underlay: Option<(u32, u32)>,
}

impl Table {
    /// A network's bridge; whether that is news.
    pub fn know_bridge(&mut self, name: IfName, index: u32) -> bool {
        let known = self.bridges.get(&index).is_some_and(|(old, _)| *old == name);
        if !known {
            self.bridges.retain(|_, (old, _)| *old != name);
            self.bridges.insert(index, (name, None));
        }
        !known
    }

    /// The underlay's index and MTU.
    pub fn know_underlay(&mut self, underlay: Option<(u32, u32)>) {
        self.underlay = underlay;
    }

    /// What an event means; `own`: one of our sockets on the host caused it.
    pub fn judge(&mut self, event: &Received, own: bool) -> Vec<Drift> {
        let body = event.body();
        let one = |drift: Option<Drift>| drift.into_iter().collect();
        match (event.kind, event.nsid) {
            (parse::NEW_LINK | parse::DEL_LINK, nsid) => {
                let Some(link) = parse::link(body) else { return Vec::new() };
                match (event.kind, nsid) {
                    (parse::NEW_LINK, None) => one(self.host_link(&link, own)),
                    (_, None) => one(self.host_link_gone(&link, own)),
                    (parse::NEW_LINK, Some(id)) => self.pod_link(id, &link),
                    (_, Some(id)) => one(self.pod_of(id, link.index)),
                }
            }
            (parse::DEL_ADDRESS, nsid) => one(self.address_gone(nsid, body)),
            (parse::NEW_ROUTE | parse::DEL_ROUTE, nsid) => {
                let gone = event.kind == parse::DEL_ROUTE;
                match (parse::route(body), nsid) {
                    (Some(route), None) => one(self.host_route(&route, gone, own)),
                    (Some(route), Some(id)) => self.pod_route(id, &route, gone),
                    (None, _) => Vec::new(),
                }
            }
            (parse::NEW_NEIGHBOUR | parse::DEL_NEIGHBOUR, nsid) => {
                let gone = event.kind == parse::DEL_NEIGHBOUR;
                one(parse::neighbour(body).and_then(|neighbour| match nsid {
                    None => self.host_neighbour(&neighbour, gone, own),
                    Some(id) => self.pod_neighbour(id, &neighbour, gone),
                }))
            }
            (parse::NEW_NETCONF, None) => one(self.netconf(body)),
            _ => Vec::new(),
        }
    }

    fn host_link(&mut self, link: &LinkEvent, own: bool) -> Option<Drift> {
        let now = Seen::from(link);
        if let Some((index, mtu)) = self.underlay
            && index == link.index
            && mtu != link.mtu
        {
            self.underlay = Some((index, link.mtu));
            return Some(Drift::Underlay);
        }
        if let Some((name, seen)) = self.bridges.get_mut(&link.index) {
            let before = seen.replace(now.clone());
            let lost = before.is_some_and(|before| before.loses(&now)) && !own;
            return lost.then(|| Drift::Network(name.clone()));
        }
        if is_parked(link.group) {
            // On its way out; what happens to it from here on is no loss.
            self.forget_host(link.index);
            return None;
        }
        if let Some(side) = self.hosts.get_mut(&link.index) {
            let lost = side.seen.loses(&now) && !own;
            side.seen = now;
            return lost.then(|| Drift::Endpoint(side.name.clone()));
        }
        let name: IfName = link.name.parse().ok().filter(is_host_name)?;
        let pod = link.peer_netns.zip(link.peer);
        if let Some(pod) = pod {
            self.pods.insert(pod, PodSide { host: link.index, seen: None });
        }
        let side = HostSide { name, seen: now, pod, routes: Vec::new() };
        self.hosts.insert(link.index, side);
        None
    }

    fn host_link_gone(&mut self, link: &LinkEvent, own: bool) -> Option<Drift> {
        if self.underlay.is_some_and(|(index, _)| index == link.index) {
            self.underlay = None;
            return Some(Drift::Underlay);
        }
        if let Some((name, _)) = self.bridges.remove(&link.index) {
            return (!own).then_some(Drift::Network(name));
        }
        self.forget_host(link.index).filter(|_| !own).map(Drift::Endpoint)
    }

    fn forget_host(&mut self, index: u32) -> Option<IfName> {
        let side = self.hosts.remove(&index)?;
        if let Some(pod) = side.pod {
            self.pods.remove(&pod);
        }
        for ip in side.routes {
            if self.routes.get(&ip) == Some(&index) {
                self.routes.remove(&ip);
            }
        }
        Some(side.name)
    }

    fn pod_link(&mut self, id: i32, link: &LinkEvent) -> Vec<Drift> {
        if link.index == LOOPBACK {
            let down = link.switched() && !link.is_new() && !link.up;
            return if down { self.all_in(id) } else { Vec::new() };
        }
        let Some(pod) = self.pods.get_mut(&(id, link.index)) else { return Vec::new() };
        let now = Seen::from(link);
        let lost = match &pod.seen {
            Some(before) => before.loses(&now),
            // Its first event is its coming up, or it was there before us.
            None => !(link.is_new() || link.switched() && link.up),
        };
        pod.seen = Some(now);
        let host = pod.host;
        if lost { self.endpoint(host).into_iter().collect() } else { Vec::new() }
    }

    fn endpoint(&self, host: u32) -> Option<Drift> {
        self.hosts.get(&host).map(|side| Drift::Endpoint(side.name.clone()))
    }

    fn pod_of(&self, id: i32, index: u32) -> Option<Drift> {
        self.endpoint(self.pods.get(&(id, index))?.host)
    }

    fn address_gone(&self, nsid: Option<i32>, body: &[u8]) -> Option<Drift> {
        let index = parse::address_link(body)?;
        match nsid {
            Some(id) => self.pod_of(id, index),
            None => self.bridges.get(&index).map(|(name, _)| Drift::Network(name.clone())),
        }
    }

    fn host_route(&mut self, route: &parse::RouteEvent, gone: bool, own: bool) -> Option<Drift> {
        if route.is_default() {
            return Some(Drift::Underlay);
        }
        let (ip, link) = (route.host()?, route.link?);
        if route.protocol == OUR_PROTOCOL && !gone {
            let side = self.hosts.get_mut(&link)?;
            if self.routes.insert(ip, link) != Some(link) {
                side.routes.push(ip);
            }
            return None;
        }
        // Ours is gone, or another one stands in its place.
        let ours = *self.routes.get(&ip)?;
        if own { None } else { self.endpoint(ours) }
    }

    fn pod_route(&self, id: i32, route: &parse::RouteEvent, gone: bool) -> Vec<Drift> {
        /// `RTPROT_KERNEL`: comes and goes with an address.
        const KERNEL: u8 = 2;
        let foreign = route.protocol != OUR_PROTOCOL && route.protocol != KERNEL;
        match route.link {
            // Another one in the place of ours leads out by any link.
            _ if !gone && foreign => self.all_in(id),
            Some(link) if gone => self.pod_of(id, link).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Every endpoint of a sandbox.
    fn all_in(&self, id: i32) -> Vec<Drift> {
        let here = self.pods.iter().filter(|((ns, _), _)| *ns == id);
        here.filter_map(|(_, pod)| self.endpoint(pod.host)).collect()
    }

    fn host_neighbour(
        &self,
        neighbour: &parse::NeighbourEvent,
        gone: bool,
        own: bool,
    ) -> Option<Drift> {
        let side = self.hosts.get(&neighbour.link)?;
        let routed = side.seen.master.is_none();
        if own || !routed || link_local(neighbour.ip) || !self.routes.contains_key(&neighbour.ip) {
            return None;
        }
        // One that is there and permanent may have another MAC: worth a look as well.
        let _ = gone;
        Some(Drift::Endpoint(side.name.clone()))
    }

    fn pod_neighbour(
        &self,
        id: i32,
        neighbour: &parse::NeighbourEvent,
        gone: bool,
    ) -> Option<Drift> {
        // Next hops of routed endpoints are link-local; nobody else is that there.
        if !link_local(neighbour.ip) {
            return None;
        }
        let pod = self.pods.get(&(id, neighbour.link))?;
        let side = self.hosts.get(&pod.host)?;
        let right = !gone && neighbour.permanent && neighbour.mac == Some(side.seen.mac);
        (!right && side.seen.master.is_none()).then(|| Drift::Endpoint(side.name.clone()))
    }

    fn netconf(&self, body: &[u8]) -> Option<Drift> {
        match parse::forwarding_off(body)? {
            ALL_LINKS => Some(Drift::Sysctl),
            index => {
                let (name, _) = self.bridges.get(&u32::try_from(index).ok()?)?;
                Some(Drift::Network(name.clone()))
            }
        }
    }
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => Ipv6Addr::is_unicast_link_local(&v6),
    }
}
