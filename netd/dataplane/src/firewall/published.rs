//! What the firewall's thread has made of host ports, for the thread that ends flows.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;

use super::port_owners::PortOwners;
use netd_domain::{IfName, Wiring};

/// The endpoints with host ports, and the addresses on which host ports are.
#[derive(Debug, Default)]
pub(crate) struct Published {
    inner: Mutex<Inner>,
    /// The bit of the connection mark of flows through host ports.
    mark: u32,
}

#[derive(Debug, Default)]
struct Inner {
    endpoints: HashMap<IfName, Arc<Wiring>>,
    node: BTreeSet<IpAddr>,
}

impl Published {
    pub(crate) fn new(mark: u32) -> Self {
        Self { mark, inner: Mutex::default() }
    }

    pub(super) fn add(&self, wiring: &Arc<Wiring>) {
        if !wiring.port_mappings.is_empty() {
            self.inner.lock().endpoints.insert(wiring.host_ifname.clone(), wiring.clone());
        }
    }

    pub(super) fn remove(&self, wiring: &Wiring) {
        self.inner.lock().endpoints.remove(&wiring.host_ifname);
    }

    /// Replaces all of them.
    pub(super) fn replace<'a>(&self, wirings: impl Iterator<Item = &'a Arc<Wiring>>) {
        let published = wirings.filter(|wiring| !wiring.port_mappings.is_empty());
        let by_name = published.map(|wiring| (wiring.host_ifname.clone(), wiring.clone()));
        self.inner.lock().endpoints = by_name.collect();
    }

    pub(super) fn set_node(&self, addresses: BTreeSet<IpAddr>) {
        self.inner.lock().node = addresses;
    }

    pub(super) fn node(&self) -> BTreeSet<IpAddr> {
        self.inner.lock().node.clone()
    }

    pub(super) fn owners(&self) -> PortOwners {
        let inner = self.inner.lock();
        let wirings = inner.endpoints.values().map(|wiring| &**wiring);
        PortOwners::new(wirings, inner.node.clone(), self.mark)
    }
}
