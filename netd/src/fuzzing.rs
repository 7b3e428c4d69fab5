//! Entry points for `fuzz/`: no input may cause a panic.

use netd_api::v1;
use prost::Message as _;

use crate::api;
use crate::node;

/// Stored records, one a line. Each line is decoded as every kind of record; those that
/// decode are loaded as at start and used. The same bytes are read as a journal file too.
pub fn records(bytes: &[u8]) {
    netd_store::embedded::fuzz_journal(bytes);
    node::fuzzing::rebuild(bytes.split(|b| *b == b'\n'));
}

/// Bytes that a netlink socket received.
pub fn netlink(bytes: &[u8]) {
    netd_dataplane::fuzzing::netlink(bytes);
}

/// The gRPC requests with the most fields. A valid one is recorded, read back and used.
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

/// flannel's configuration and leases as etcd holds them, one a line.
pub fn leases(bytes: &[u8]) {
    netd_cluster::fuzzing::leases(bytes);
}
