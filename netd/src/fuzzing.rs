//! Entry points for `fuzz/`: hostile bytes in, no panic out.

use netd_api::v1;
use prost::Message as _;

use crate::api;
use crate::node;

/// Stored records: newline-separated, each tried as every kind; what is taken is loaded
/// into a registry as at start, and used. And the same as the journal that holds records.
pub fn records(bytes: &[u8]) {
    netd_store::embedded::fuzz_journal(bytes);
    node::fuzzing::rebuild(bytes.split(|b| *b == b'\n'));
}

/// What the kernel says on netlink sockets.
pub fn netlink(bytes: &[u8]) {
    netd_dataplane::fuzzing::netlink(bytes);
}

/// gRPC requests that carry the most. What passes is recorded, read back, and taken.
pub fn requests(bytes: &[u8]) {
    if let Ok(request) = v1::AttachRequest::decode(bytes)
        && let Ok(spec) = api::check_attach(request)
    {
        node::fuzzing::attach(spec);
    }
    if let Ok(request) = v1::CreateNetworkRequest::decode(bytes)
        && let Ok(network) = api::check_network(request.network)
    {
        node::fuzzing::network(network);
    }
    if let Ok(request) = v1::AnnotateRequest::decode(bytes) {
        let _ = api::check_sandbox(request.sandbox);
    }
}

/// What the cluster's store says of the overlay: the configuration and leases, a line each.
pub fn leases(bytes: &[u8]) {
    netd_cluster::fuzzing::leases(bytes);
}
