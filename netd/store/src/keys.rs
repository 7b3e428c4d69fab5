//! Where things are kept, and how long they last.

use ipnet::IpNet;
use netd_domain::{EndpointKey, NetworkName};

/// Networks: last over reboots.
pub const NETWORKS: &str = "/netd/v1/networks/";
/// Endpoint records: last over a crash of netd, void after a reboot.
pub const ENDPOINTS: &str = "/netd/v1/node/endpoints/";
/// Who holds which address: as endpoints.
pub const ADDRESSES: &str = "/netd/v1/node/addresses/";
/// Addresses that netd assigns for networks of other programs: last over reboots.
pub const EXTERNAL_ADDRESSES: &str = "/netd/v1/external-addresses/";
/// What is left of detached endpoints: as endpoints.
pub const TOMBSTONES: &str = "/netd/v1/node/tombstones/";
/// Everything under here is void after a reboot and is written without fsync.
pub(crate) const VOLATILE: &str = "/netd/v1/node/";

/// Written and removed to see whether durable keys can be written again.
pub const PROBE_DURABLE: &str = "/netd/v1/probe";
/// As [`PROBE_DURABLE`], of volatile keys.
pub const PROBE_VOLATILE: &str = "/netd/v1/node/probe";

/// The key of a network.
pub fn network(name: &NetworkName) -> String {
    format!("{NETWORKS}{name}")
}

/// The key of an endpoint.
pub fn endpoint(key: &EndpointKey) -> String {
    format!("{ENDPOINTS}{key}")
}

/// The endpoint of a key that [`endpoint`] made.
pub fn endpoint_of(key: &str) -> Option<EndpointKey> {
    let (sandbox, ifname) = key.strip_prefix(ENDPOINTS)?.split_once('/')?;
    Some(EndpointKey { sandbox: sandbox.parse().ok()?, ifname: ifname.parse().ok()? })
}

/// The key of an address; its value is the endpoint's key as text, or "reserved".
pub fn address(network: &NetworkName, ip: std::net::IpAddr) -> String {
    format!("{ADDRESSES}{network}/{ip}")
}

/// The key of an address of a subnet that no network has; its value is "reserved".
pub fn external_address(subnet: IpNet, ip: std::net::IpAddr) -> String {
    format!("{EXTERNAL_ADDRESSES}{}-{}/{ip}", subnet.addr(), subnet.prefix_len())
}

/// The subnet and the address of a key that [`external_address`] made.
pub fn external_address_of(key: &str) -> Option<(IpNet, std::net::IpAddr)> {
    let (subnet, ip) = key.strip_prefix(EXTERNAL_ADDRESSES)?.split_once('/')?;
    let (address, length) = subnet.rsplit_once('-')?;
    let subnet = IpNet::new(address.parse().ok()?, length.parse().ok()?).ok()?;
    Some((subnet, ip.parse().ok().filter(|ip| subnet.contains(ip))?))
}

/// The key of a tombstone.
pub fn tombstone(key: &EndpointKey) -> String {
    format!("{TOMBSTONES}{key}")
}

/// Where flannel keeps its configuration and leases, unless told otherwise.
pub(crate) const FLANNEL_PREFIX: &str = "/coreos.com/network";
/// What netd keeps about the cluster, unless told otherwise.
pub(crate) const NETD_PREFIX: &str = "/netd/v1";

/// Keys that all nodes share. Which prefixes they have is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterKeys {
    flannel: String,
    netd: String,
}

impl Default for ClusterKeys {
    fn default() -> Self {
        Self::new(FLANNEL_PREFIX, NETD_PREFIX)
    }
}

impl ClusterKeys {
    /// Keys under these prefixes; a `/` at their end changes nothing.
    pub fn new(flannel: &str, netd: &str) -> Self {
        let trimmed = |prefix: &str| prefix.trim_end_matches('/').to_owned();
        Self { flannel: trimmed(flannel), netd: trimmed(netd) }
    }

    /// Everything of flannel's: the configuration and the leases.
    pub fn flannel(&self) -> String {
        format!("{}/", self.flannel)
    }

    /// The cluster's configuration; netd only reads it.
    pub fn config(&self) -> String {
        format!("{}/config", self.flannel)
    }

    /// All leases.
    pub fn leases(&self) -> String {
        format!("{}/subnets/", self.flannel)
    }

    /// A lease, by flannel's name of its subnets (`10.5.52.0-24`).
    pub fn lease(&self, name: &str) -> String {
        format!("{}/subnets/{name}", self.flannel)
    }

    /// Everything that netd nodes say about themselves.
    pub fn cluster(&self) -> String {
        format!("{}/cluster/", self.netd)
    }

    /// All nodes' records.
    pub fn nodes(&self) -> String {
        format!("{}/cluster/nodes/", self.netd)
    }

    /// A node's record, by its id: names may be given twice.
    pub fn node(&self, id: &str) -> String {
        format!("{}/cluster/nodes/{id}", self.netd)
    }

    /// Which netd node has which subnets.
    pub fn owners(&self) -> String {
        format!("{}/cluster/owners/", self.netd)
    }

    /// The owner of a lease, by the lease's name.
    pub fn owner(&self, name: &str) -> String {
        format!("{}/cluster/owners/{name}", self.netd)
    }

    /// Endpoints of all nodes.
    pub fn endpoints(&self) -> String {
        format!("{}/endpoints/", self.netd)
    }

    /// Endpoints with addresses of a lease, by its name: a node's own are one range, and
    /// an address is found without reading any other.
    pub fn endpoints_of(&self, name: &str) -> String {
        format!("{}/endpoints/{name}/", self.netd)
    }

    /// The endpoint that has an address of this lease.
    pub fn endpoint_at(&self, name: &str, ip: std::net::IpAddr) -> String {
        format!("{}/endpoints/{name}/{ip}", self.netd)
    }
}
