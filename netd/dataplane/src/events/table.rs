//! Decides which events mean that something of netd's may be lost, by comparing them with
//! what was made. Pure.

use std::{collections::HashMap, net::IpAddr};

use super::{
    ids::Ids,
    overlay::OverlayTable,
    parse::{self, LinkEvent, NeighbourEvent, RouteEvent},
};
use crate::{
    Drift, RepairKind,
    device_names::DOCKER0,
    netlink::{
        Received,
        link_group::{ENDPOINT_GROUP, is_detached},
        route::NETD_PROTOCOL,
    },
};
use netd_domain::IfName;

const ALL_LINKS: i32 = -1;

/// What was made of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Name and index of the host's end.
    pub name: IfName,
    pub host: u32,
    pub host_mac: [u8; 6],
    /// Namespace id and index of the sandbox's end.
    pub pod: Option<(i32, u32)>,
    pub pod_mac: [u8; 6],
    pub pod_name: IfName,
    pub mtu: u32,
    /// The bridge's index; `None`: routed.
    pub bridge: Option<u32>,
    /// Routed: where the host routes lead to.
    pub addresses: Vec<IpAddr>,
    /// A runtime moves the sandbox's end. When the host's end gets its carrier, look whether
    /// it has.
    pub awaited: bool,
}

/// A bridge that was made or adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedBridge {
    pub name: IfName,
    pub mac: [u8; 6],
    pub mtu: u32,
}

/// Everything that was made, by interface index.
#[derive(Debug, Default)]
pub(crate) struct Table {
    endpoints: HashMap<u32, Expected>,
    names: HashMap<IfName, u32>,
    pods: HashMap<(i32, u32), u32>,
    addresses: HashMap<IpAddr, u32>,
    bridges: HashMap<u32, ExpectedBridge>,
    ids: Ids,
    /// Index and MTU.
    underlay: Option<(u32, u32)>,
    /// What was made of the overlay.
    pub overlay: OverlayTable,
}

impl Table {
    /// Watches this endpoint from now on.
    pub(crate) fn expect(&mut self, endpoint: Expected) {
        let old = self.names.insert(endpoint.name.clone(), endpoint.host);
        old.into_iter().for_each(|index| drop(self.forget_index(index)));
        self.names.insert(endpoint.name.clone(), endpoint.host);
        if let Some(pod) = endpoint.pod {
            self.pods.insert(pod, endpoint.host);
            self.ids.seen(pod.0);
        }
        for ip in &endpoint.addresses {
            self.addresses.insert(*ip, endpoint.host);
        }
        self.endpoints.insert(endpoint.host, endpoint);
    }

    /// Whether the link is the bridge of a network.
    pub(crate) fn is_bridge(&self, index: u32) -> bool {
        self.bridges.contains_key(&index)
    }

    /// The id that the namespace of the next sandbox should get; `None`: any.
    pub(crate) fn wish_id(&mut self) -> Option<i32> {
        self.ids.wish(self.pods.len())
    }

    /// Stops to watch it.
    pub(crate) fn forget(&mut self, name: &IfName) {
        if let Some(index) = self.names.get(name).copied() {
            self.forget_index(index);
        }
    }

    fn forget_index(&mut self, index: u32) -> Option<IfName> {
        let endpoint = self.endpoints.remove(&index)?;
        self.names.remove(&endpoint.name);
        // Another one may have taken over since.
        if let Some(pod) = endpoint.pod
            && self.pods.get(&pod) == Some(&index)
        {
            self.pods.remove(&pod);
        }
        for ip in endpoint.addresses {
            if self.addresses.get(&ip) == Some(&index) {
                self.addresses.remove(&ip);
            }
        }
        Some(endpoint.name)
    }

    /// Watches this bridge from now on.
    pub(crate) fn expect_bridge(&mut self, index: u32, bridge: ExpectedBridge) {
        self.bridges.retain(|_, old| old.name != bridge.name);
        self.bridges.insert(index, bridge);
    }

    /// Stops to watch it.
    pub(crate) fn forget_bridge(&mut self, name: &IfName) {
        self.bridges.retain(|_, old| old.name != *name);
    }

    /// Whether a device leads out of the node, as far as is known.
    pub(crate) fn has_underlay(&self) -> bool {
        self.underlay.is_some()
    }

    /// The underlay's index and MTU.
    pub(crate) fn know_underlay(&mut self, underlay: Option<(u32, u32)>) {
        self.underlay = underlay;
    }

    /// Whether the event says that a link of the host's has come up of which netd knows nothing.
    pub(crate) fn is_new_link(&self, event: &Received) -> Option<u32> {
        if (event.kind, event.nsid) != (parse::NEW_LINK, None) {
            return None;
        }
        let link = parse::link(event.body())?;
        let known = self.endpoints.contains_key(&link.index)
            || self.bridges.contains_key(&link.index)
            || self.overlay.has_device(link.index);
        (link.came_up() && link.master.is_none() && !known).then_some(link.index)
    }

    /// What an event means; `own`: one of our sockets on the host caused it.
    pub(crate) fn judge(&mut self, event: &Received, own: bool) -> Vec<Drift> {
        let mut found = self.judge_endpoints(event, own);
        let moved = found.contains(&Drift::Underlay) && self.overlay.knows_underlay();
        if event.nsid.is_none() && (moved || self.overlay.is_hurt(event, own)) {
            found.push(Drift::Overlay);
        }
        found
    }

    fn judge_endpoints(&mut self, event: &Received, own: bool) -> Vec<Drift> {
        let body = event.body();
        match (event.kind, event.nsid) {
            (parse::NEW_LINK | parse::DEL_LINK, nsid) => {
                let Some(link) = parse::link(body) else { return Vec::new() };
                match (event.kind, nsid) {
                    (parse::NEW_LINK, None) => one(self.host_link(&link, own)),
                    (_, None) => one(self.host_link_gone(&link, own)),
                    (parse::NEW_LINK, Some(id)) => self.pod_link(id, &link),
                    (_, Some(id)) => one(self.pod_of(id, link.index, RepairKind::Link)),
                }
            }
            (parse::NEW_ADDRESS | parse::DEL_ADDRESS, None) if is_docker0s(body) => {
                vec![Drift::Docker0]
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
                    None => self.host_neighbour(&neighbour, own),
                    Some(id) => self.pod_neighbour(id, &neighbour, gone),
                }))
            }
            (parse::NEW_NETCONF, None) => one(self.netconf(body)),
            _ => Vec::new(),
        }
    }

    fn host_link(&mut self, link: &LinkEvent, own: bool) -> Option<Drift> {
        if let Some((index, mtu)) = self.underlay
            && index == link.index
            && mtu != link.mtu
        {
            return Some(Drift::Underlay);
        }
        if let Some(bridge) = self.bridges.get(&link.index) {
            let lost = link.went_down()
                || (link.mtu, link.mac) != (bridge.mtu, bridge.mac)
                || link.name != bridge.name.as_str();
            return (lost && !own).then(|| Drift::Network(bridge.name.clone()));
        }
        if is_detached(link.group) {
            // On its way out; what happens to it from here on is no loss.
            self.forget_index(link.index);
            return None;
        }
        let endpoint = self.endpoints.get(&link.index)?;
        if endpoint.awaited && link.carrier {
            return Some(Drift::Endpoint(endpoint.name.clone()));
        }
        let lost = link.went_down()
            || (link.mtu, link.mac) != (endpoint.mtu, endpoint.host_mac)
            || link.master != endpoint.bridge
            || link.name != endpoint.name.as_str()
            || link.group != ENDPOINT_GROUP;
        (lost && !own).then(|| Drift::Endpoint(endpoint.name.clone()))
    }

    fn host_link_gone(&mut self, link: &LinkEvent, own: bool) -> Option<Drift> {
        if self.underlay.is_some_and(|(index, _)| index == link.index) {
            return Some(Drift::Underlay);
        }
        if let Some(bridge) = self.bridges.remove(&link.index) {
            return (!own).then_some(Drift::Network(bridge.name));
        }
        self.forget_index(link.index).filter(|_| !own).map(Drift::Endpoint)
    }

    fn pod_link(&self, id: i32, link: &LinkEvent) -> Vec<Drift> {
        // lo is the runtime's: containerd takes it down before it asks netd to detach.
        let lost = |e: &&Expected| {
            link.went_down()
                || (link.mtu, link.mac) != (e.mtu, e.pod_mac)
                || link.name != e.pod_name.as_str()
        };
        let endpoint = self.pods.get(&(id, link.index)).and_then(|host| self.endpoints.get(host));
        one(endpoint.filter(lost).map(|e| Drift::Pod(e.name.clone(), RepairKind::Link)))
    }

    fn pod_of(&self, id: i32, index: u32, kind: RepairKind) -> Option<Drift> {
        let endpoint = self.endpoints.get(self.pods.get(&(id, index))?)?;
        Some(Drift::Pod(endpoint.name.clone(), kind))
    }

    /// How many endpoints of netd's the sandbox with this namespace id has.
    pub(crate) fn endpoints_in(&self, id: i32) -> usize {
        self.pods.keys().filter(|(namespace, _)| *namespace == id).count()
    }

    /// Every endpoint of a sandbox.
    fn all_in(&self, id: i32, kind: RepairKind) -> Vec<Drift> {
        let here = self.pods.keys().filter(|(namespace, _)| *namespace == id);
        here.filter_map(|(_, index)| self.pod_of(id, *index, kind)).collect()
    }

    fn address_gone(&self, nsid: Option<i32>, body: &[u8]) -> Option<Drift> {
        let index = parse::address_link(body)?;
        match nsid {
            Some(id) => self.pod_of(id, index, RepairKind::Address),
            None => self.bridges.get(&index).map(|bridge| Drift::Network(bridge.name.clone())),
        }
    }

    fn host_route(&self, route: &RouteEvent, gone: bool, own: bool) -> Option<Drift> {
        if route.is_default() {
            return Some(Drift::Underlay);
        }
        // Ours is gone, or another one stands in its place.
        let endpoint = self.endpoints.get(self.addresses.get(&route.host()?)?)?;
        let foreign = route.protocol != NETD_PROTOCOL;
        let lost = if gone { route.link == Some(endpoint.host) } else { foreign };
        (lost && !own).then(|| Drift::Endpoint(endpoint.name.clone()))
    }

    fn pod_route(&self, id: i32, route: &RouteEvent, gone: bool) -> Vec<Drift> {
        /// `RTPROT_KERNEL`: comes and goes with an address.
        const KERNEL: u8 = 2;
        let foreign = route.protocol != NETD_PROTOCOL && route.protocol != KERNEL;
        match route.link {
            // Another one in the place of ours leads out by any link.
            _ if !gone && foreign => self.all_in(id, RepairKind::Route),
            Some(link) if gone => one(self.pod_of(id, link, RepairKind::Route)),
            _ => Vec::new(),
        }
    }

    /// The neighbour is gone or has changed; either way ours may be lost.
    fn host_neighbour(&self, neighbour: &NeighbourEvent, own: bool) -> Option<Drift> {
        let endpoint = self.endpoints.get(&neighbour.link)?;
        let ours = endpoint.addresses.contains(&neighbour.ip);
        (ours && !own).then(|| Drift::Endpoint(endpoint.name.clone()))
    }

    fn pod_neighbour(&self, id: i32, neighbour: &NeighbourEvent, gone: bool) -> Option<Drift> {
        // Next hops of routed endpoints are link-local; nobody else is that there.
        if !link_local(neighbour.ip) {
            return None;
        }
        let endpoint = self.endpoints.get(self.pods.get(&(id, neighbour.link))?)?;
        let right = !gone && neighbour.permanent && neighbour.mac == Some(endpoint.host_mac);
        let routed = endpoint.bridge.is_none();
        let kind = RepairKind::Neighbour;
        (!right && routed).then(|| Drift::Pod(endpoint.name.clone(), kind))
    }

    fn netconf(&self, body: &[u8]) -> Option<Drift> {
        match parse::forwarding_off(body)? {
            ALL_LINKS => Some(Drift::Sysctl),
            index => {
                let index = u32::try_from(index).ok()?;
                if let Some(bridge) = self.bridges.get(&index) {
                    return Some(Drift::Network(bridge.name.clone()));
                }
                if self.underlay.is_some_and(|(underlay, _)| underlay == index) {
                    return Some(Drift::Sysctl);
                }
                if self.overlay.has_device(index) {
                    return Some(Drift::Overlay);
                }
                let endpoint = self.endpoints.get(&index).filter(|e| e.bridge.is_none())?;
                Some(Drift::Endpoint(endpoint.name.clone()))
            }
        }
    }
}

/// dockerd gives out the addresses of its own bridge's subnet.
fn is_docker0s(body: &[u8]) -> bool {
    parse::address_label(body).is_some_and(|label| label == DOCKER0)
}

fn one(drift: Option<Drift>) -> Vec<Drift> {
    drift.into_iter().collect()
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
