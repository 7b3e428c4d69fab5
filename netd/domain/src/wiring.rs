//! The desired state of the kernel for endpoints and networks; the dataplane makes it so.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    bandwidth::Bandwidth,
    ids::{IfName, Mac, NetworkName},
    port_mapping::PortMapping,
};

/// A route inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Next hop; `None`: on link.
    pub gateway: Option<IpAddr>,
}

/// An address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WiredAddress {
    /// The address with the prefix length that the interface gets: the pool's
    /// on a bridge, /32 or /128 when routed.
    pub address: IpNet,
    /// Next hop of the default route; link-local when routed.
    pub gateway: Option<IpAddr>,
}

/// How the host side of an endpoint is wired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WiringDriver {
    /// The host side is a port of this bridge.
    Bridge(IfName),
    /// For each address the host has a route and a permanent neighbour on the host's side;
    /// the pod has the gateway as a permanent neighbour with `host_mac`.
    Routed,
}

/// Everything the kernel has to hold for one endpoint. Stored with the endpoint,
/// so that repair and adoption after a restart need nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// The network, for rules and isolation.
    pub network: NetworkName,
    /// Bridge port or routed.
    pub driver: WiringDriver,
    /// Name on the host.
    pub host_ifname: IfName,
    /// Name in the sandbox.
    pub ifname: IfName,
    /// MAC of the sandbox's side.
    pub mac: Mac,
    /// MAC of the host's side.
    pub host_mac: Mac,
    /// MTU of both sides, bytes.
    pub mtu: u32,
    /// One or two, at most one a family.
    pub addresses: Vec<WiredAddress>,
    /// Routes inside the sandbox, the default ones among them; on-link routes to
    /// a link-local gateway (routed) come before those that use it.
    pub routes: Vec<Route>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
    /// Rate limits.
    pub bandwidth: Bandwidth,
    /// The MAC that another program has given the sandbox's side since; it may send with it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_mac: Option<Mac>,
}

/// Where the pod's end of an endpoint's pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodSide {
    /// In the sandbox.
    Placed,
    /// On the host, as [`super::EndpointKey::staging_ifname`], until the runtime moves it.
    Pending,
}

impl Wiring {
    /// The MACs that the pod may send with.
    pub fn macs(&self) -> impl Iterator<Item = Mac> + Clone + '_ {
        [Some(self.mac), self.pod_mac].into_iter().flatten()
    }

    /// The MAC with which the pod answers now.
    pub fn present_mac(&self) -> Mac {
        self.pod_mac.unwrap_or(self.mac)
    }

    /// The addresses of the pod.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + Clone + '_ {
        self.addresses.iter().map(|a| a.address.addr())
    }
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeWiring {
    /// The device's name.
    pub name: IfName,
    /// Fixed: otherwise the kernel takes the lowest MAC of the ports.
    pub mac: Mac,
    /// The gateways' addresses, with the pools' prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// Everything the kernel has to hold for one network on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkWiring {
    /// The network.
    pub name: NetworkName,
    /// `None`: routed driver.
    pub bridge: Option<BridgeWiring>,
    /// Effective MTU, bytes.
    pub mtu: u32,
    /// The pools' subnets.
    pub subnets: Vec<IpNet>,
    /// Ranges of the network's endpoints on all nodes, this one included; empty for a network
    /// of this node only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster: Vec<IpNet>,
    /// This node's subnets in `cluster` whose addresses Docker gives out on docker0. They are
    /// masqueraded like the network's own, but are on no bridge of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker0: Vec<IpNet>,
    /// Pods have the node's address towards the outside (masquerade).
    pub masquerade: bool,
    /// No traffic to or from outside of the network.
    pub internal: bool,
    /// From outside of the network and of the node, endpoints are reached by host ports only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published_only: bool,
}

impl NetworkWiring {
    /// The same network without these of its subnets, and without their gateways.
    pub fn without(mut self, subnets: &[IpNet]) -> Self {
        self.subnets.retain(|subnet| !subnets.contains(subnet));
        if let Some(bridge) = &mut self.bridge {
            bridge.addresses.retain(|gateway| !subnets.contains(&gateway.trunc()));
        }
        self
    }

    /// Every range in which the network's endpoints may be, without those inside another.
    pub fn ranges(&self) -> impl Iterator<Item = &IpNet> {
        let outside = |net: &&IpNet| !self.cluster.iter().any(|c| c.contains(*net));
        self.cluster.iter().chain(self.subnets.iter().filter(outside))
    }
}

/// Next hop of routed IPv4 endpoints. No interface has this address: a permanent neighbour
/// in the sandbox maps it to the MAC of the host's side.
pub const ROUTED_GATEWAY_V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 1, 1));
/// Next hop of routed IPv6 endpoints.
pub const ROUTED_GATEWAY_V6: IpAddr =
    IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
