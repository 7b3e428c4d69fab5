//! What the firewall's thread works with: the tables, and what they have to hold, so that
//! the thread can compare the two and replace the tables.

use std::{collections::HashMap, sync::Arc};

use super::{
    own::OwnChanges,
    published::Published,
    settings::{FirewallSettings, FirewallState},
    tables::Firewall,
};
use crate::{DataplaneError, Repair, RepairKind};
use netd_domain::{IfName, NetworkWiring, Wiring};

/// State of the firewall's thread.
#[derive(Debug)]
pub(crate) struct Rules {
    firewall: Firewall,
    networks: Vec<Arc<NetworkWiring>>,
    endpoints: HashMap<IfName, Arc<Wiring>>,
    published: Arc<Published>,
}

impl Rules {
    /// Opens the firewall; nothing is known to be wanted yet.
    pub(crate) fn open(settings: FirewallSettings) -> Result<Self, DataplaneError> {
        let published = Arc::new(Published::new(settings.hostport_mark));
        let firewall = Firewall::new(settings)?;
        Ok(Self { firewall, networks: Vec::new(), endpoints: HashMap::new(), published })
    }

    /// For the thread that ends flows.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    /// For a watcher.
    pub(crate) fn own_changes(&self) -> OwnChanges {
        self.firewall.own_changes()
    }

    /// Makes the tables hold `state`, if they don't already. What was repaired: nothing
    /// if only the wishes have changed since the tables were made.
    pub(crate) fn replace(&mut self, state: FirewallState) -> Result<Vec<Repair>, DataplaneError> {
        // They are followed on their own; here only a change by others counts.
        self.follow_addresses()?;
        let mut same = self.firewall.intact(&state)?;
        if !same {
            let changed_by_others = !self.intact()?;
            self.firewall.replace(&state)?;
            same = !changed_by_others;
        }
        self.networks = state.networks;
        self.endpoints = state.endpoints.into_iter().map(|w| (w.host_ifname.clone(), w)).collect();
        self.published.replace(self.endpoints.values());
        self.published.set_node(self.firewall.node_addresses().clone());
        let detail = "replace the nftables tables".to_owned();
        Ok(if same { Vec::new() } else { vec![Repair { kind: RepairKind::Firewall, detail }] })
    }

    /// Lets an endpoint through.
    pub(crate) fn add(&mut self, wiring: Arc<Wiring>) -> Result<(), DataplaneError> {
        self.firewall.add_endpoint(&wiring)?;
        self.published.add(&wiring);
        self.endpoints.insert(wiring.host_ifname.clone(), wiring);
        Ok(())
    }

    /// Forgets an endpoint.
    pub(crate) fn remove(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        self.firewall.remove_endpoint(wiring)?;
        self.published.remove(wiring);
        self.endpoints.remove(&wiring.host_ifname);
        Ok(())
    }

    /// Makes host ports follow the node's addresses. Returns whether they have changed.
    pub(crate) fn follow_addresses(&mut self) -> Result<bool, DataplaneError> {
        let changed = self.firewall.follow_addresses()?;
        self.published.set_node(self.firewall.node_addresses().clone());
        Ok(changed)
    }

    /// Whether the kernel holds exactly what was asked for.
    pub(crate) fn intact(&mut self) -> Result<bool, DataplaneError> {
        let state = FirewallState {
            networks: self.networks.clone(),
            endpoints: self.endpoints.values().cloned().collect(),
        };
        self.firewall.intact(&state)
    }

    /// Chains of others that drop forwarded packets by default.
    pub(crate) fn foreign_forward_drops(&mut self) -> Result<Vec<String>, DataplaneError> {
        self.firewall.foreign_forward_drops()
    }
}
