//! Which pod each host port leads to now, and so which flows go past it. Pure.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use super::{
    elements::{self, Part},
    flow::Flow,
};
use netd_domain::{Protocol, Wiring};

/// An address and a port.
type Target = (IpAddr, u16);

/// Host ports and the pods that they lead to.
#[derive(Debug, Default)]
pub(super) struct PortOwners {
    /// By protocol number, host address and port.
    bound: HashMap<(u8, IpAddr, u16), Target>,
    /// By protocol number, whether it is of IPv4, and port: on every address of the node.
    any: HashMap<(u8, bool, u16), Target>,
    /// The node's addresses.
    node: BTreeSet<IpAddr>,
    /// The bit of the connection mark of flows through host ports.
    mark: u32,
}

impl PortOwners {
    pub(super) fn new<'a>(
        wirings: impl IntoIterator<Item = &'a Wiring>,
        node: BTreeSet<IpAddr>,
        mark: u32,
    ) -> Self {
        let mut owners = Self { node, mark, ..Self::default() };
        for element in wirings.into_iter().flat_map(elements::of_endpoint) {
            let [Part::Ip(pod), Part::Port(port)] = *element.data.as_slice() else { continue };
            let Some(host) = element.host_port() else { continue };
            let protocol = elements::number(host.protocol);
            match host.ip {
                Some(ip) => drop(owners.bound.insert((protocol, ip, host.port), (pod, port))),
                None => {
                    owners.any.insert((protocol, pod.is_ipv4(), host.port), (pod, port));
                }
            }
        }
        owners
    }

    /// The pod that new flows to this address and port reach.
    fn owner(&self, protocol: u8, (ip, port): Target) -> Option<Target> {
        let any = || {
            let key = (protocol, ip.is_ipv4(), port);
            self.any.get(&key).filter(|_| self.node.contains(&ip))
        };
        self.bound.get(&(protocol, ip, port)).or_else(any).copied()
    }

    /// Whether a flow goes on to where no new flow of its kind would go: to one of the
    /// addresses `ended`, which have lost their owner, or past the pod that has the host port
    /// now.
    pub(super) fn is_stale(&self, flow: &Flow, ended: &HashSet<IpAddr>) -> bool {
        if flow.addresses().iter().any(|ip| ended.contains(ip)) {
            return true;
        }
        // An established connection stays with the living end that accepted it. Others repeat
        // their first packet, or never have a first one (UDP), and would never leave.
        let accepted = flow.protocol == elements::number(Protocol::Tcp) && flow.replied;
        if accepted {
            return false;
        }
        let untranslated = flow.answers == flow.to;
        // What is translated without the mark is another program's, kube-proxy's for example.
        let by_host_port = flow.mark & self.mark != 0 && !untranslated;
        match self.owner(flow.protocol, flow.to) {
            Some(owner) => flow.answers != owner && (by_host_port || untranslated),
            None => by_host_port,
        }
    }
}
