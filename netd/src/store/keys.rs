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

/// The key of a network.
pub fn network(name: &NetworkName) -> String {
    format!("{NETWORKS}{name}")
}

/// The key of an endpoint.
pub fn endpoint(key: &EndpointKey) -> String {
    format!("{ENDPOINTS}{key}")
}

/// The key of an address; its value is the endpoint's key as text.
pub fn address(network: &NetworkName, ip: std::net::IpAddr) -> String {
    format!("{ADDRESSES}{network}/{ip}")
}

/// The key of a tombstone.
pub fn tombstone(key: &EndpointKey) -> String {
    format!("{TOMBSTONES}{key}")
}
