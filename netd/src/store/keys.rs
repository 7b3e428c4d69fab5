//! Where things are kept, and how long they last.

use crate::domain::{EndpointKey, NetworkName};

/// Networks: last over reboots.
pub const NETWORKS: &str = "/netd/v1/networks/";
/// Endpoint records: last over a crash of netd, void after a reboot.
pub const ENDPOINTS: &str = "/netd/v1/node/endpoints/";
/// Who holds which address: as endpoints.
pub const ADDRESSES: &str = "/netd/v1/node/addresses/";
/// What is left of detached endpoints: as endpoints.
pub const TOMBSTONES: &str = "/netd/v1/node/tombstones/";
/// Everything under here is void after a reboot and is written without fsync.
pub const VOLATILE: &str = "/netd/v1/node/";

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

/// The key of a tombstone.
pub fn tombstone(key: &EndpointKey) -> String {
    format!("{TOMBSTONES}{key}")
}
