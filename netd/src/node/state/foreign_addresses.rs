//! Addresses that pods have of which netd has no record: they are not given out as long as
//! the pods live.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{
    foreign_entry::{ForeignEntry, ForeignHolder},
    node_state::{Inner, NodeState},
};
use netd_domain::{EndpointKey, NetworkName, Wiring};

/// One such address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignAddress {
    /// The address.
    pub(crate) ip: IpAddr,
    /// Who has it.
    pub(crate) holder: ForeignHolder,
    /// The network from whose pool it is.
    pub(crate) network: NetworkName,
    /// An endpoint of netd's that has it too.
    pub(crate) endpoint: Option<EndpointKey>,
}

/// What has changed: addresses, each with its holder as text.
#[derive(Debug, Default)]
pub(crate) struct ForeignChanges {
    pub(crate) held: Vec<(IpAddr, String)>,
    pub(crate) freed: Vec<(IpAddr, String)>,
}

impl Inner {
    /// Takes the addresses that can be given out by now: pools come and go, and so do
    /// endpoints that have one of them. Returns those that were taken now.
    pub(super) fn take_foreign(&mut self) -> Vec<(IpAddr, String)> {
        let mut taken = Vec::new();
        for (ip, entry) in self.foreign.iter_mut().filter(|(_, entry)| entry.taken_in.is_none()) {
            let here = |pools: &[netd_domain::Pool]| pools.iter().any(|p| p.subnet.contains(ip));
            let Some(network) = self.networks.values().find(|n| here(&n.network.pools)) else {
                continue;
            };
            let name = network.network.name.clone();
            let allocator = self.allocators.get_mut(&name);
            let free = |a: &mut netd_domain::ipam::NetworkAllocator| {
                a.allocate_within(IpNet::from(*ip), Some(*ip)).is_ok()
            };
            if allocator.is_some_and(free) {
                taken.push((*ip, entry.holder.to_string()));
                entry.taken_in = Some(name);
            }
        }
        taken
    }

    /// A network is gone, and its allocator with it.
    pub(super) fn untake_foreign(&mut self, network: &NetworkName) {
        for entry in self.foreign.values_mut() {
            entry.taken_in.take_if(|taken_in| taken_in == network);
        }
    }

    /// Who has an address, if it is not netd's to give.
    pub(super) fn foreign_holder(&self, ip: IpAddr) -> Option<String> {
        let entry = self.foreign.get(&ip).filter(|entry| entry.taken_in.is_some())?;
        Some(entry.holder.to_string())
    }
}

impl NodeState {
    /// Replaces the addresses that are not netd's to give; `pods` are the links with names of
    /// netd's that have no record. Returns what has changed, and whether `pods` has.
    pub(crate) fn set_foreign(
        &self,
        addresses: BTreeMap<IpAddr, ForeignHolder>,
        pods: Vec<Arc<Wiring>>,
    ) -> (ForeignChanges, bool) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut changes = ForeignChanges::default();
        let gone = inner.foreign.keys().filter(|ip| !addresses.contains_key(ip));
        for ip in gone.copied().collect::<Vec<_>>() {
            let Some(entry) = inner.foreign.remove(&ip) else { continue };
            inner.last_macs.was_of_unknown(ip);
            let Some(network) = entry.taken_in else { continue };
            inner.allocators.get_mut(&network).map(|a| a.release(ip));
            changes.freed.push((ip, entry.holder.to_string()));
        }
        for (ip, holder) in addresses {
            let taken_in = inner.foreign.remove(&ip).and_then(|old| old.taken_in);
            inner.foreign.insert(ip, ForeignEntry { holder, taken_in });
        }
        changes.held = inner.take_foreign();
        let changed = inner.unrecorded_pods != pods;
        inner.unrecorded_pods = pods;
        (changes, changed)
    }

    /// The addresses in the networks' pools that pods have of which netd has no record, in
    /// order.
    pub(crate) fn foreign_addresses(&self) -> Vec<ForeignAddress> {
        let inner = self.inner.lock();
        let networks = inner.networks.values();
        let networks: Vec<_> = networks.map(|n| &n.network).collect();
        let of = |ip: &IpAddr| {
            let here = |p: &netd_domain::Pool| p.subnet.contains(ip) && p.gateway != *ip;
            networks.iter().find(|n| n.pools.iter().any(here)).map(|n| n.name.clone())
        };
        let used_twice = |ip: IpAddr| {
            let mut all = inner.endpoints.values().map(|entry| &entry.endpoint);
            all.find(|e| e.ips().any(|own| own == ip)).map(|e| e.key.clone())
        };
        let all = inner.foreign.iter().filter_map(|(ip, entry)| {
            let network = of(ip)?;
            let endpoint = if entry.taken_in.is_none() { used_twice(*ip) } else { None };
            Some(ForeignAddress { ip: *ip, holder: entry.holder.clone(), network, endpoint })
        });
        all.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::node::{error::Error, state::Placement};
    use netd_domain::{AttachSpec, NetnsId, Network, Pool, network::NetworkOptions};

    fn network(name: &str, subnets: &[&str]) -> Arc<Network> {
        let pool = |s: &&str| Pool::new(s.parse().unwrap(), None, (None, None), vec![]).unwrap();
        let pools = subnets.iter().map(pool).collect();
        let options = NetworkOptions::default();
        Arc::new(Network::new(name.parse().unwrap(), pools, options).unwrap())
    }

    fn put(state: &NodeState, name: &str, subnets: &[&str]) {
        let network = network(name, subnets);
        let wiring = Arc::new(network.wiring(1500));
        state.put_network(network, wiring);
    }

    fn held(ips: &[&str]) -> BTreeMap<IpAddr, ForeignHolder> {
        let holder =
            |ip: &&str| ForeignHolder { link: Some(format!("to-{ip}")), ..Default::default() };
        ips.iter().map(|ip| (ip.parse().unwrap(), holder(ip))).collect()
    }

    fn attach(state: &NodeState, sandbox: &str, asked: &[&str]) -> Result<Vec<String>, Error> {
        let key =
            EndpointKey { sandbox: sandbox.parse().unwrap(), ifname: "eth0".parse().unwrap() };
        let mut spec = AttachSpec::for_endpoint(key, "blue".parse().unwrap(), 1);
        spec.addresses = asked.iter().map(|ip| ip.parse().unwrap()).collect();
        let netns = NetnsId { dev: 1, inode: 2, cookie: None };
        let endpoint = state.reserve(&spec, Placement::In(netns))?;
        Ok(endpoint.ips().map(|ip| ip.to_string()).collect())
    }

    #[test]
    fn an_address_is_given_to_nobody_until_its_holder_is_gone() {
        let state = NodeState::default();
        put(&state, "blue", &["10.1.0.0/29"]);
        let (changes, _) = state.set_foreign(held(&["10.1.0.2", "10.1.0.4", "10.9.9.9"]), vec![]);
        assert_eq!((changes.held.len(), changes.freed.len()), (2, 0));
        assert_eq!(attach(&state, "a", &[]).unwrap(), ["10.1.0.3"]);
        let refused = attach(&state, "b", &["10.1.0.4"]).unwrap_err().to_string();
        assert!(refused.contains("behind to-10.1.0.4"), "{refused}");
        assert_eq!(attach(&state, "b", &[]).unwrap(), ["10.1.0.5"]);
        assert_eq!(attach(&state, "c", &[]).unwrap(), ["10.1.0.6"]);
        assert!(attach(&state, "d", &[]).is_err(), "full");
        let (changes, _) = state.set_foreign(held(&["10.1.0.2"]), vec![]);
        assert_eq!((changes.held.len(), changes.freed.len()), (0, 1));
        assert_eq!(attach(&state, "d", &[]).unwrap(), ["10.1.0.4"]);
    }

    #[test]
    fn pools_that_come_later_and_go_again_make_no_difference() {
        let state = NodeState::default();
        put(&state, "blue", &["10.1.0.0/29"]);
        state.set_foreign(held(&["10.2.0.2", "10.1.0.2"]), vec![]);
        assert_eq!(state.foreign_addresses().len(), 1);
        put(&state, "blue", &["10.2.0.0/29"]);
        assert_eq!(attach(&state, "a", &[]).unwrap(), ["10.2.0.3"]);
        put(&state, "blue", &["10.1.0.0/29"]);
        assert_eq!(attach(&state, "b", &[]).unwrap(), ["10.1.0.3"]);
        assert_eq!(state.retire_network(&"blue".parse().unwrap()), 2);
        let names: Vec<_> = state.foreign_addresses().iter().map(|a| a.ip.to_string()).collect();
        assert_eq!(names, ["10.1.0.2"]);
    }

    #[test]
    fn one_that_an_endpoint_has_too_is_held_once_that_endpoint_is_gone() {
        let state = NodeState::default();
        put(&state, "blue", &["10.1.0.0/29"]);
        assert_eq!(attach(&state, "a", &[]).unwrap(), ["10.1.0.2"]);
        state.set_foreign(held(&["10.1.0.2"]), vec![]);
        let shown = state.foreign_addresses();
        let key = shown[0].endpoint.clone().unwrap();
        assert_eq!(key.to_string(), "a/eth0");
        let (endpoint, _) = state.endpoint(&key).unwrap();
        state.drop_reservation(&endpoint, &[]);
        assert!(attach(&state, "b", &["10.1.0.2"]).is_err());
        assert_eq!(state.foreign_addresses()[0].endpoint, None);
    }
}
