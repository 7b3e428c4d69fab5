//! The record of an endpoint.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    error::Invalid,
    ids::{EndpointKey, NetnsId, NetworkName},
    wiring::{Route, Wiring},
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

impl Bandwidth {
    /// The kernel's token bucket counts its burst in 32 bits of bytes.
    pub const MOST_BURST: u64 = (u32::MAX as u64) * 8;

    /// Rates are 8 bits a second or more; a rate has a burst, of at most
    /// [`Self::MOST_BURST`], and no burst is without a rate.
    ///
    /// # Errors
    /// `ingress_rate`, `ingress_burst`, `egress_rate`, `egress_burst`.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut bad = Invalid::new();
        let sides = [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ];
        for (side, rate, burst) in sides {
            if (rate == 0) != (burst == 0) {
                let text = format!("rate {rate} with burst {burst}: give both, or neither");
                bad.add(format!("{side}_burst"), text);
            }
            if burst > Self::MOST_BURST {
                let text = format!("{burst} is above {}", Self::MOST_BURST);
                bad.add(format!("{side}_burst"), text);
            }
            if rate != 0 && rate < 8 {
                bad.add(format!("{side}_rate"), format!("{rate} is below 8 bits a second"));
            }
        }
        bad.into_result()
    }
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
    /// The path did not lead netd to the namespace: a hook in PID or mount namespaces of
    /// its own gave it, and the namespace as a descriptor. netd can't enter it again by
    /// itself, so what is in the sandbox is put right only when the runtime asks (ADD
    /// again, CHECK); the namespace counts as gone when the host's end of the pair is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub path_is_foreign: bool,
    /// What the kernel has to hold.
    pub wiring: Wiring,
    /// The MTU was asked for: it does not follow the network's.
    #[serde(default)]
    pub fixed_mtu: bool,
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
    /// Strictly increasing over attaches and releases on this node: the order in
    /// which addresses were taken and given back.
    pub sequence: u64,
    /// `None`: netd makes the sandbox's side in the sandbox (CNI, NRI, OCI).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Moved>,
}

/// The sandbox's side of an endpoint that a runtime moves there itself (CNM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// How far that is.
    pub stage: Stage,
    /// Routes that the runtime sets in the sandbox. It changes them as networks come and
    /// go, so netd answers for them only when it has to make the pair anew.
    pub routes: Vec<Route>,
    /// The sandbox's default routes lead through this endpoint.
    pub leads_out: bool,
    /// Addresses that the runtime reserved before: held when the endpoint goes, until it
    /// releases them.
    pub leased: Vec<IpAddr>,
}

/// Where the sandbox's side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nowhere: in no sandbox (any more).
    Created,
    /// On the host, waiting for the runtime to move it to the sandbox at `netns_path`.
    Handed,
    /// In the sandbox, seen there.
    Placed,
}

impl Endpoint {
    /// Whether a runtime moves the sandbox's side, and it is not in the sandbox.
    pub fn is_outside(&self) -> bool {
        self.moved.as_ref().is_some_and(|moved| moved.stage != Stage::Placed)
    }

    /// Whether a runtime moves the sandbox's side, and was given it for a sandbox.
    pub fn is_joined(&self) -> bool {
        self.moved.as_ref().is_some_and(|moved| moved.stage != Stage::Created)
    }

    /// Whether `source` attached it: its own source is the same, or begins with `source` and a
    /// slash (`docker` for `docker/NETWORK`).
    pub fn is_of_source(&self, source: &str) -> bool {
        let rest = self.source.strip_prefix(source);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

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
