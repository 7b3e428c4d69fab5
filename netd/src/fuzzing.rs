//! Entry points for `fuzz/`: no input may cause a panic.

use netd_api::v1;
use prost::Message as _;

use crate::api::{
    self,
    hook::requests::{Descriptors, Received, Requests},
};
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

/// What a hook sends: the first byte says in pieces of how many bytes less one, the second
/// with which of the first eight pieces a descriptor comes.
pub fn hook(bytes: &[u8]) {
    let [size, descriptors, bytes @ ..] = bytes else { return };
    let mut received = Requests::new();
    for (i, piece) in bytes.chunks(usize::from(*size) + 1).enumerate() {
        let has_one = i < 8 && descriptors & (1 << i) != 0;
        received.push(piece, if has_one { Descriptors::One(()) } else { Descriptors::None });
        while let Ok(Some(next)) = received.next() {
            if let Received::Call { request, .. } = next {
                requests(&request.payload);
            }
        }
    }
}

/// flannel's configuration and leases as etcd holds them, one a line.
pub fn leases(bytes: &[u8]) {
    netd_cluster::fuzzing::leases(bytes);
}
