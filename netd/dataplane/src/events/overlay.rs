//! Decides which events mean that something of the overlay may be lost. Pure.
//!
//! Forwarding entries' events don't say who caused them, and IPv6 addresses' neither: an
//! event is judged by what it says, against what was made.

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;

use super::parse::{self, LinkEvent};
use crate::{
    netlink::{
        Received,
        address::{self, HeldAddress},
        entry::{KERNEL_PROTOCOL, OverlayEntry},
        overlay_entry::{self, Neighbour},
        route::NETD_PROTOCOL,
    },
    overlay::objects::{Objects, metric_of},
};
use netd_domain::IfName;

/// A device of the overlay that was made or adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedDevice {
    pub name: IfName,
    pub mtu: u32,
    /// Length of its transmit queue, packets; `None`: any.
    pub queue: Option<u32>,
    /// `None`: any.
    pub mac: Option<[u8; 6]>,
    pub addresses: Vec<IpNet>,
}

/// The device that leads to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpectedUnderlay {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
}

/// What was made of the overlay and has to stay.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// By index.
    pub devices: HashMap<u32, ExpectedDevice>,
    /// Wanted devices that do not exist.
    pub missing: HashSet<String>,
    pub objects: Objects,
    /// This node's own subnets.
    pub own: Vec<IpNet>,
}

/// The part of the overlay that is watched.
#[derive(Debug, Default)]
pub(crate) struct OverlayTable {
    expected: Expectation,
    underlay: Option<ExpectedUnderlay>,
}

impl OverlayTable {
    /// Replaces what is watched; returns what was watched before.
    #[must_use]
    pub(crate) fn expect(&mut self, expected: Expectation) -> Expectation {
        std::mem::replace(&mut self.expected, expected)
    }

    /// Watches nothing until the next `expect`, before which everything is read again.
    #[must_use]
    pub(crate) fn expect_nothing(&mut self) -> Expectation {
        self.expect(Expectation::default())
    }

    /// Notes entries that were set and removed since `expect`.
    pub(crate) fn change(&mut self, set: &[OverlayEntry], removed: &[OverlayEntry]) {
        for entry in set {
            self.expected.objects.put(entry);
        }
        for entry in removed {
            self.expected.objects.remove_exact(entry);
        }
    }

    /// Whether this is a device of the overlay that was made or adopted.
    pub(crate) fn has_device(&self, index: u32) -> bool {
        self.expected.devices.contains_key(&index)
    }

    /// What was made.
    pub(crate) fn objects(&self) -> &Objects {
        &self.expected.objects
    }

    /// Watches this underlay from now on.
    pub(crate) fn know_underlay(&mut self, underlay: Option<ExpectedUnderlay>) {
        self.underlay = underlay;
    }

    /// Whether anybody asked for the underlay.
    pub(crate) fn knows_underlay(&self) -> bool {
        self.underlay.is_some()
    }

    /// Whether an event on the host means a loss; `own`: one of our sockets caused it.
    pub(crate) fn is_hurt(&self, event: &Received, own: bool) -> bool {
        let body = event.body();
        match event.kind {
            parse::NEW_LINK | parse::DEL_LINK => {
                let gone = event.kind == parse::DEL_LINK;
                !own && parse::link(body).is_some_and(|link| self.link(&link, gone))
            }
            parse::NEW_ADDRESS | parse::DEL_ADDRESS => {
                let gone = event.kind == parse::DEL_ADDRESS;
                let address = address::read_body(body);
                address.is_some_and(|address| self.address(&address, gone))
            }
            parse::NEW_ROUTE | parse::DEL_ROUTE if !own => self.route(event),
            parse::NEW_NEIGHBOUR | parse::DEL_NEIGHBOUR if !own => {
                let gone = event.kind == parse::DEL_NEIGHBOUR;
                Neighbour::read(body).is_some_and(|neighbour| self.neighbour(&neighbour, gone))
            }
            _ => false,
        }
    }

    fn link(&self, link: &LinkEvent, gone: bool) -> bool {
        if let Some(underlay) = &self.underlay {
            let same = (link.mtu, link.name.as_str()) == (underlay.mtu, &underlay.name);
            if link.index == underlay.index {
                return gone || link.went_down() || link.came_up() || !same;
            }
            // Another one in its place.
            if link.name == underlay.name && !gone {
                return true;
            }
        }
        let Some(device) = self.expected.devices.get(&link.index) else {
            // A tunnel's device, which its process has made by now.
            return !gone && self.expected.missing.contains(&link.name);
        };
        let mac = device.mac.is_none_or(|mac| mac == link.mac);
        let queue = device.queue.is_none_or(|packets| packets == link.queue);
        let same = mac && queue && link.mtu == device.mtu && link.name == device.name.as_str();
        // That it came up says nothing: bringing it up ourselves looks the same, and
        // before another program can it went down.
        gone || link.went_down() || !same
    }

    /// A wanted entry is gone, or an unwanted one appeared.
    fn address(&self, address: &HeldAddress, gone: bool) -> bool {
        let index = address.link;
        if let Some(device) = self.expected.devices.get(&index) {
            return address.is_global() && device.addresses.contains(&address.net) == gone;
        }
        let underlay = self.underlay.as_ref().filter(|underlay| underlay.index == index);
        let known = underlay.map(|underlay| underlay.addresses.contains(&address.net));
        match known {
            None => false,
            Some(known) if gone => known,
            Some(known) => !known && address.is_lasting(),
        }
    }

    fn route(&self, event: &Received) -> bool {
        let Some(route) = overlay_entry::read_route(event.body()) else { return false };
        let metric = metric_of(route.destination);
        let foreign = !matches!(route.protocol, NETD_PROTOCOL | KERNEL_PROTOCOL);
        if foreign && self.expected.own.iter().any(|own| own.contains(&route.destination)) {
            // It leads packets away from this node's pods, or does so no longer.
            return true;
        }
        if !self.expected.objects.routes.contains_key(&(route.destination, metric)) {
            return false;
        }
        let ours = route.protocol == NETD_PROTOCOL && route.metric == metric;
        match event.kind {
            parse::DEL_ROUTE => ours,
            // In the place of ours, or before it.
            _ => !ours && route.metric <= metric,
        }
    }

    fn neighbour(&self, neighbour: &Neighbour, gone: bool) -> bool {
        let Some(entry) = &neighbour.entry else { return false };
        let expected = match *entry {
            OverlayEntry::Neighbour { link, ip, mac } => {
                self.expected.objects.neighbours.get(&(link, ip)).map(|expected| *expected == mac)
            }
            OverlayEntry::Fdb { link, mac, remote } => {
                let expected = self.expected.objects.fdb.get(&(link, mac));
                // One that was replaced is said to be gone, too.
                expected.map(|expected| *expected == remote).filter(|same| *same || !gone)
            }
            OverlayEntry::Route(_) => None,
        };
        expected.is_some_and(|same| gone || !same || !neighbour.permanent)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::netlink::{
        Batch,
        entry::{HeldRoute, KernelHop},
    };

    const DEVICE: u32 = 9;

    fn route(metric: u32, protocol: u8) -> OverlayEntry {
        let destination: IpNet = "10.5.2.0/24".parse().unwrap();
        let metric = metric_of(destination) - metric;
        let hop = KernelHop::Link(DEVICE);
        OverlayEntry::Route(HeldRoute { destination, metric, protocol, hop, mtu: None })
    }

    fn neighbour(last: u8) -> OverlayEntry {
        let ip = "10.5.2.0".parse().unwrap();
        OverlayEntry::Neighbour { link: DEVICE, ip, mac: [2, 0, 0, 0, 0, last] }
    }

    fn fdb(last: u8) -> OverlayEntry {
        let remote = std::net::IpAddr::from([192, 0, 2, last]);
        OverlayEntry::Fdb { link: DEVICE, mac: [2, 0, 0, 0, 0, 2], remote }
    }

    fn table() -> OverlayTable {
        let mut table = OverlayTable::default();
        table.change(&[route(0, NETD_PROTOCOL), neighbour(2), fdb(2)], &[]);
        table
    }

    /// The event that says that an entry was made, or is gone.
    fn event(entry: &OverlayEntry, gone: bool) -> Received {
        let mut batch = Batch::new();
        batch.route(overlay_entry::set(entry), 0);
        let mut event = crate::netlink::cut(batch.bytes(), None).remove(0);
        event.kind += u16::from(gone);
        event
    }

    #[test]
    fn what_has_to_be_there_is_missed_and_what_came_as_wanted_is_not() {
        let table = table();
        for entry in [route(0, NETD_PROTOCOL), neighbour(2), fdb(2)] {
            assert!(table.is_hurt(&event(&entry, true), false), "{entry}");
            assert!(!table.is_hurt(&event(&entry, false), false), "{entry}");
        }
        assert!(!table.is_hurt(&event(&neighbour(2), true), true), "ours");
    }

    #[test]
    fn what_stands_in_the_place_of_ours_is_a_loss() {
        let table = table();
        for entry in [neighbour(3), fdb(3), route(0, 3), route(1, 3)] {
            assert!(table.is_hurt(&event(&entry, false), false), "{entry}");
        }
        let other = HeldRoute::ours("10.5.3.0/24".parse().unwrap(), 0, KernelHop::Nowhere, None);
        for gone in [false, true] {
            assert!(
                !table.is_hurt(&event(&OverlayEntry::Route(other), gone), false),
                "another one"
            );
        }
        assert!(!table.is_hurt(&event(&fdb(3), true), false), "was not wanted anyway");
    }

    #[test]
    fn what_was_removed_is_missed_no_more() {
        let mut table = table();
        let all = [route(0, NETD_PROTOCOL), neighbour(2), fdb(2)];
        table.change(&[], &all);
        for entry in all {
            assert!(!table.is_hurt(&event(&entry, true), false), "{entry}");
        }
    }
}
