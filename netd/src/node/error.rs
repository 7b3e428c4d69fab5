//! Why the node could not do what it was asked for. `api/error.rs` maps each to a gRPC
//! status.

use netd_cluster::membership::removal::RemovalError;
use netd_dataplane::{DataplaneError, HostListener};
use netd_domain::ipam::IpamError;
use netd_domain::{EndpointKey, HostPort, Invalid, NetworkName, NotAllowed, SandboxId};
use netd_store::StoreError;

/// Result of what the node does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the node could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request's fields.
    #[error("{0}")]
    Invalid(#[from] Invalid),
    /// No such network.
    #[error("there is no network \"{0}\"; `netd network list` shows those there are")]
    NoNetwork(NetworkName),
    /// netd's own keys, which are in etcd, are asked for where Kubernetes is the source.
    #[error(
        "there is no etcd: the Kubernetes API has the cluster's nodes (`kubectl get nodes`, \
         `kubectl delete node NAME`), and its pods (`kubectl get pods -A -o wide`)"
    )]
    NoEtcd,
    /// No such endpoint.
    #[error("there is no endpoint {0}")]
    NoEndpoint(EndpointKey),
    /// The sandbox has no endpoint.
    #[error("sandbox {0} has no endpoint")]
    NoSandbox(SandboxId),
    /// Another network of that name, or with overlapping pools, is there.
    #[error("{0}")]
    NetworkExists(String),
    /// The network still has endpoints.
    #[error("network \"{name}\" still has {endpoints} endpoints; detach them first")]
    NetworkInUse {
        /// The network.
        name: NetworkName,
        /// How many.
        endpoints: usize,
    },
    /// The endpoint of this key is in another namespace.
    #[error(
        "endpoint {key} is attached in another network namespace ({have}), not in {asked}; detach it first"
    )]
    Elsewhere {
        /// The endpoint.
        key: EndpointKey,
        /// Path, inode and cookie of its namespace.
        have: String,
        /// Inode and cookie of the request's.
        asked: String,
    },
    /// The endpoint's namespace is not the one that was expected.
    #[error("endpoint {key} is not in {asked} but in {have}")]
    WrongNetns {
        /// The endpoint.
        key: EndpointKey,
        /// Expected path.
        asked: String,
        /// Its own.
        have: String,
    },
    /// A detach that was issued later has already been done.
    #[error("endpoint {0} was detached after this attach was issued; the attach came too late")]
    Detached(EndpointKey),
    /// Its removal is still under way.
    #[error("endpoint {0} is still being removed; try again")]
    StillDetaching(EndpointKey),
    /// Two different endpoints hash to one host interface name.
    #[error("host interface {ifname} belongs to endpoint {other}")]
    HostNameTaken {
        /// The name.
        ifname: String,
        /// Its owner.
        other: EndpointKey,
    },
    /// The endpoint exists, and differs from the request.
    #[error("endpoint {key} exists with {what}; delete it first")]
    Different {
        /// The endpoint.
        key: EndpointKey,
        /// What differs.
        what: String,
    },
    /// The endpoint was attached to a sandbox right away: it can't join and leave.
    #[error("endpoint {0} was attached to its sandbox; only Detach ends that")]
    NotMoved(EndpointKey),
    /// The runtime has not moved the sandbox's side yet.
    #[error("endpoint {0} waits for the runtime to move it into its sandbox")]
    NotPlaced(EndpointKey),
    /// Another endpoint has the host port.
    #[error("host port {port} is held by endpoint {holder}")]
    PortTaken {
        /// The port.
        port: HostPort,
        /// Its owner.
        holder: EndpointKey,
    },
    /// A process of the host listens on the host port.
    #[error(
        "host port {}: a process of user {} on this node listens on {}, and its clients would \
         reach the pod; stop it, or use another host port (`ss -lnptu` shows it)",
        .0.port, .0.uid, .0.address
    )]
    PortListened(HostListener),
    /// The kernel differs from the record.
    #[error("endpoint {key} differs from its record: {}", differences.join("; "))]
    Differs {
        /// The endpoint.
        key: EndpointKey,
        /// In words.
        differences: Vec<String>,
    },
    /// The allocator gave no address.
    #[error("network \"{network}\": {source}")]
    Ipam {
        /// The network.
        network: NetworkName,
        /// Why.
        source: IpamError,
    },
    /// No address of a subnet whose network another program makes.
    #[error(
        "{subnet}, whose addresses netd assigns for another program's network: {source}; \
         `netd network release ADDRESS` frees one that nothing uses any more"
    )]
    External {
        /// The whole subnet.
        subnet: ipnet::IpNet,
        /// Why.
        source: IpamError,
    },
    /// The network does not give the pod what it asked for.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The requested address is that of a pod that netd has no record of.
    #[error(
        "network \"{network}\": {ip} is in use by a pod that netd has no record of ({holder}); \
         it is free once that pod is deleted, and `netd status` shows all of these"
    )]
    AddressForeign {
        /// The network.
        network: NetworkName,
        /// The address.
        ip: std::net::IpAddr,
        /// The pod, in words.
        holder: String,
    },
    /// The network's pools are leased, and the node has no lease yet.
    #[error("network \"{network}\": this node has no subnet of the cluster yet: {why}")]
    NoSubnet {
        /// The network.
        network: NetworkName,
        /// What is missing.
        why: String,
    },
    /// The overlay's network can't be deleted.
    #[error(
        "network \"{0}\" has the node's subnets of the cluster: take the overlay out of the \
         configuration first ([etcd], [overlay])"
    )]
    OverlayNetwork(NetworkName),
    /// dockerd assigns the network's addresses.
    #[error("{0}")]
    Docker0(String),
    /// A pool is a network of the host itself.
    #[error("{0}")]
    HostNetwork(String),
    /// Asked about the cluster of a node that is not in one.
    #[error(
        "this node is not in a cluster: set etcd.endpoints in its configuration; if they are set, `netd status` says what it waits for"
    )]
    NoOverlay,
    /// A node of the cluster was not removed.
    #[error(transparent)]
    Removal(RemovalError),
    /// The kernel's side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A page token or a revision that can't be used.
    #[error("{0}")]
    Compacted(String),
    /// A defect of netd.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<RemovalError> for Error {
    fn from(error: RemovalError) -> Self {
        match error {
            RemovalError::Store(error) => Self::Store(error),
            error => Self::Removal(error),
        }
    }
}
