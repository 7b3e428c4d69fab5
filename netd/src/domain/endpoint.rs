//! The record of an endpoint.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    ids::{EndpointKey, NetnsId, NetworkName},
    wiring::Wiring,
};

/// Who a pod is, as the runtime says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub name: String,
    /// Pod uid.
    pub uid: String,
}

/// Transport of a host port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// 6
    Tcp,
    /// 17
    Udp,
    /// 132
    Sctp,
}

/// A port of the host that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortMapping {
    /// 1 to 65535.
    pub host_port: u16,
    /// 1 to 65535.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// `None`: every address of the host, both families.
    pub host_ip: Option<IpAddr>,
}

/// Rate limits; rates in bits a second, bursts in bits, 0: none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// To the pod.
    pub ingress_rate: u64,
    /// To the pod.
    pub ingress_burst: u64,
    /// From the pod.
    pub egress_rate: u64,
    /// From the pod.
    pub egress_burst: u64,
}

/// Resolver settings, passed through to the runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of servers.
    pub nameservers: Vec<String>,
    /// Local domain.
    pub domain: String,
    /// Search list.
    pub search: Vec<String>,
    /// Resolver options.
    pub options: Vec<String>,
}

/// What is wanted of an endpoint. The record itself is the intent: it is written
/// before any kernel work, and `Attached` means "make it so", not "is so".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The kernel must hold the wiring.
    Attached,
    /// The kernel must not; the addresses are still held until the link is gone.
    Detaching,
}

/// The record of an endpoint, as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Identity.
    pub key: EndpointKey,
    /// The network it joins.
    pub network: NetworkName,
    /// What is wanted.
    pub phase: Phase,
    /// The sandbox's namespace.
    pub netns_path: PathBuf,
    /// Identity of the namespace; with `netns_path`, the fence against another
    /// sandbox of the same id.
    pub netns: NetnsId,
    /// What the kernel has to hold.
    pub wiring: Wiring,
    /// Who the pod is.
    pub pod: PodIdentity,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Resolver settings.
    pub dns: Dns,
    /// Seconds since the Unix epoch.
    pub created_at: i64,
    /// CLOCK_BOOTTIME, ns, of the request that led to the present phase.
    pub issued_at: u64,
    /// Who asked for it.
    #[serde(default)]
    pub source: String,
    /// The MTU was asked for; else it follows the network's.
    #[serde(default)]
    pub own_mtu: bool,
    /// Strictly increasing over attaches and releases on this node: the order in
    /// which addresses were taken and given back.
    pub sequence: u64,
}

impl Endpoint {
    /// The addresses it holds.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.wiring.addresses.iter().map(|a| a.address.addr())
    }
}

/// What is left of an endpoint for a while after its detach: an attach issued before
/// the detach is refused, and its addresses are the last to be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// Identity of what was detached (or was never there when the detach came).
    pub key: EndpointKey,
    /// CLOCK_BOOTTIME, ns, of the detach request.
    pub issued_at: u64,
    /// Seconds since the Unix epoch, when the addresses were given back.
    pub released_at: i64,
    /// The network whose addresses it had.
    pub network: Option<NetworkName>,
    /// The addresses given back.
    pub addresses: Vec<IpAddr>,
    /// As [`Endpoint::sequence`].
    pub sequence: u64,
}
