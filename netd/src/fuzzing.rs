//! Entry points for `fuzz/`: hostile bytes in, no panic out.

use netd_api::v1;
use prost::Message as _;

use crate::{
    api,
    domain::{Endpoint, Network, Tombstone},
    usecase,
};

/// Stored records: newline-separated, each tried as every kind; what decodes is loaded
/// into a registry as at start.
pub fn records(bytes: &[u8]) {
    let (mut networks, mut endpoints, mut tombstones) = (vec![], vec![], vec![]);
    for record in bytes.split(|b| *b == b'\n') {
        networks.extend(serde_json::from_slice::<Network>(record));
        endpoints.extend(serde_json::from_slice::<Endpoint>(record));
        tombstones.extend(serde_json::from_slice::<Tombstone>(record));
    }
    usecase::rebuild(networks, endpoints, tombstones);
}

/// gRPC requests that carry the most.
pub fn requests(bytes: &[u8]) {
    if let Ok(request) = v1::AttachRequest::decode(bytes) {
        let _ = api::check_attach(request);
    }
    if let Ok(request) = v1::CreateNetworkRequest::decode(bytes) {
        let _ = api::check_network(request.network);
    }
}
