//! Which events mean that something of the overlay may be lost. Pure.
//!
//! Forwarding entries' events don't say who caused them, and IPv6 addresses' neither: an
//! event is judged by what it says, against what has to be there.

use std::collections::HashMap;

use ipnet::IpNet;

use super::parse::{self, LinkEvent};
use crate::{
    dataplane::{
        message::{
            net::PROTOCOL_NUMBER,
            object::{self, HeldAddress, Neighbour},
        },
        netlink::Received,
        overlay::objects::{Entry, Objects, metric_of},
    },
    domain::IfName,
};

/// A device of the overlay that was made or adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedDevice {
    pub name: IfName,
    pub mtu: u32,
    /// `None`: it has none that matters.
    pub mac: Option<[u8; 6]>,
    pub addresses: Vec<IpNet>,
}

/// The device that leads to the other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedUnderlay {
    pub name: String,
    pub index: u32,
    pub mtu: u32,
    pub addresses: Vec<IpNet>,
}

/// What was made of the overlay.
#[derive(Debug, Default)]
pub struct OverlayTable {
    devices: HashMap<u32, ExpectedDevice>,
    objects: Objects,
    underlay: Option<ExpectedUnderlay>,
}

impl OverlayTable {
    /// From now on changes of these matter, and of no others.
    pub fn expect(&mut self, devices: HashMap<u32, ExpectedDevice>, objects: Objects) {
        (self.devices, self.objects) = (devices, objects);
    }

    /// Until the next `expect` nothing matters: everything will be read then.
    pub fn expect_nothing(&mut self) {
        self.expect(HashMap::new(), Objects::default());
    }

    /// What was set and removed since.
    pub fn change(&mut self, set: &[Entry], removed: &[Entry]) {
        for entry in set {
            self.objects.put(entry);
        }
        for entry in removed {
            self.objects.take(entry);
        }
    }

    /// What has to be there.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// From now on changes of this underlay matter.
    pub fn know_underlay(&mut self, underlay: Option<ExpectedUnderlay>) {
        self.underlay = underlay;
    }

    /// Whether anybody asked for the underlay.
    pub fn knows_underlay(&self) -> bool {
        self.underlay.is_some()
    }

    /// Whether an event on the host means a loss; `own`: one of our sockets caused it.
    pub fn is_hurt(&self, event: &Received, own: bool) -> bool {
        let body = event.body();
        match event.kind {
            parse::NEW_LINK | parse::DEL_LINK => {
                let gone = event.kind == parse::DEL_LINK;
                !own && parse::link(body).is_some_and(|link| self.link(&link, gone))
            }
            parse::NEW_ADDRESS | parse::DEL_ADDRESS => {
                let gone = event.kind == parse::DEL_ADDRESS;
                let address = object::read_address(body);
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
        let Some(device) = self.devices.get(&link.index) else { return false };
        let mac = device.mac.is_none_or(|mac| mac == link.mac);
        let same = mac && link.mtu == device.mtu && link.name == device.name.as_str();
        gone || link.went_down() || link.came_up() || !same
    }

    /// Gone though it has to be there, or there though it has not.
    fn address(&self, address: &HeldAddress, gone: bool) -> bool {
        let index = address.link;
        if let Some(device) = self.devices.get(&index) {
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
        let Some(route) = object::read_route(event.body()) else { return false };
        let metric = metric_of(route.destination);
        if !self.objects.routes.contains_key(&(route.destination, metric)) {
            return false;
        }
        let ours = route.protocol == PROTOCOL_NUMBER && route.metric == metric;
        match event.kind {
            parse::DEL_ROUTE => ours,
            // In the place of ours, or before it.
            _ => !ours && route.metric <= metric,
        }
    }

    fn neighbour(&self, neighbour: &Neighbour, gone: bool) -> bool {
        let Some(entry) = &neighbour.entry else { return false };
        let expected = match *entry {
            Entry::Neighbour { link, ip, mac } => {
                self.objects.neighbours.get(&(link, ip)).map(|expected| *expected == mac)
            }
            Entry::Fdb { link, mac, remote } => {
                let expected = self.objects.fdb.get(&(link, mac));
                // One that was replaced is said to be gone, too.
                expected.map(|expected| *expected == remote).filter(|same| *same || !gone)
            }
            Entry::Route(_) => None,
        };
        expected.is_some_and(|same| gone || !same || !neighbour.permanent)
    }
}
