//! One table: error -> gRPC status with google.rpc details. The metadata of a reason is in
//! `error_metadata`.
//!
//! | gRPC code | when | retry |
//! |---|---|---|
//! | INVALID_ARGUMENT | a field is wrong (BadRequest names each) | no |
//! | NOT_FOUND | no such network, endpoint, sandbox | no |
//! | ALREADY_EXISTS | the name, address, port, interface is another's | no |
//! | FAILED_PRECONDITION | detached since, in use, differs from the kernel, no cluster | no |
//! | PERMISSION_DENIED | the network is closed to the pod, or to its wishes | no |
//! | RESOURCE_EXHAUSTED | a pool or a bridge is full | when an endpoint has gone |
//! | OUT_OF_RANGE | a watch's revision is compacted | list again |
//! | ABORTED | a node of the cluster wrote while it was to be removed | yes |
//! | UNAVAILABLE | the store is out of reach, a removal is under way, no subnet yet, the kernel hangs, no descriptors or memory left | yes (RetryInfo) |
//! | UNIMPLEMENTED | this kernel can't do it | no |
//! | INTERNAL | the kernel refused, or a fault of netd's | maybe |

use std::time::Duration;

use netd_api::ERROR_DOMAIN;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::error_metadata;
use crate::node::Error;
use netd_cluster::membership::removal::RemovalError;
use netd_dataplane::DataplaneError;
use netd_domain::Invalid;
use netd_domain::ipam::IpamError;
use netd_store::StoreError;

/// After which a caller may try again what is likely to pass by itself.
const RETRY: Duration = Duration::from_millis(500);

struct Row {
    code: Code,
    reason: &'static str,
    /// The request's field that is at fault, if one is.
    field: Option<&'static str>,
    retry: bool,
}

const fn row(code: Code, reason: &'static str) -> Row {
    Row { code, reason, field: None, retry: false }
}

const fn field(code: Code, reason: &'static str, field: &'static str) -> Row {
    Row { code, reason, field: Some(field), retry: false }
}

const fn retry(code: Code, reason: &'static str) -> Row {
    Row { code, reason, field: None, retry: true }
}

fn table(error: &Error) -> Row {
    match error {
        Error::Invalid(_) => row(Code::InvalidArgument, "INVALID_FIELD"),
        Error::NoNetwork(_) => field(Code::NotFound, "NETWORK_NOT_FOUND", "network"),
        Error::NoEndpoint(_) => row(Code::NotFound, "ENDPOINT_NOT_FOUND"),
        Error::NoSandbox(_) => row(Code::NotFound, "SANDBOX_NOT_FOUND"),
        Error::NetworkExists(_) => row(Code::AlreadyExists, "NETWORK_EXISTS"),
        Error::NetworkInUse { .. } => row(Code::FailedPrecondition, "NETWORK_IN_USE"),
        Error::Elsewhere { .. } => row(Code::AlreadyExists, "ENDPOINT_ELSEWHERE"),
        Error::WrongNetns { .. } => row(Code::FailedPrecondition, "WRONG_NETNS"),
        Error::Detached(_) => row(Code::FailedPrecondition, "DETACHED_SINCE"),
        Error::StillDetaching(_) => retry(Code::Unavailable, "STILL_DETACHING"),
        Error::HostNameTaken { .. } => row(Code::AlreadyExists, "HOST_INTERFACE_TAKEN"),
        Error::Different { .. } => row(Code::AlreadyExists, "ENDPOINT_EXISTS"),
        Error::NotMoved(_) => row(Code::FailedPrecondition, "NOT_MOVED"),
        Error::NotPlaced(_) => retry(Code::Unavailable, "NOT_PLACED"),
        Error::PortTaken { .. } | Error::PortListened(_) => {
            field(Code::AlreadyExists, "HOST_PORT_TAKEN", "port_mappings")
        }
        Error::Differs { .. } => row(Code::FailedPrecondition, "ENDPOINT_DIFFERS"),
        Error::Ipam { source, .. } | Error::External { source, .. } => ipam(source),
        Error::NotAllowed(refused) => {
            field(Code::PermissionDenied, "POD_NOT_ALLOWED", refused.wish.field())
        }
        Error::AddressForeign { .. } => field(Code::AlreadyExists, "ADDRESS_TAKEN", "addresses"),
        Error::NoSubnet { .. } => retry(Code::Unavailable, "NO_SUBNET"),
        Error::OverlayNetwork(_) => row(Code::FailedPrecondition, "OVERLAY_NETWORK"),
        Error::Docker0(_) => row(Code::FailedPrecondition, "SUBNET_IS_DOCKER0S"),
        Error::HostNetwork(_) => row(Code::FailedPrecondition, "SUBNET_IS_THE_HOSTS"),
        Error::NoEtcd => row(Code::FailedPrecondition, "NO_ETCD"),
        Error::NoOverlay => row(Code::FailedPrecondition, "NO_OVERLAY"),
        Error::Removal(error) => removal(error),
        Error::Dataplane(error) => dataplane(error),
        Error::Store(error) => store(error),
        Error::Compacted(_) => row(Code::OutOfRange, "REVISION_COMPACTED"),
        Error::Internal(_) => row(Code::Internal, "INTERNAL"),
    }
}

fn removal(error: &RemovalError) -> Row {
    match error {
        RemovalError::NotFound(_) => field(Code::NotFound, "NODE_NOT_FOUND", "node"),
        RemovalError::Ambiguous { .. } => field(Code::InvalidArgument, "NODE_AMBIGUOUS", "node"),
        RemovalError::Own(_) => field(Code::FailedPrecondition, "NODE_IS_THIS", "node"),
        RemovalError::Alive(_) => row(Code::FailedPrecondition, "NODE_RUNS"),
        RemovalError::Unknown { .. } => row(Code::FailedPrecondition, "NODE_NOT_ASKED"),
        RemovalError::Changed(_) => row(Code::Aborted, "NODE_CHANGED"),
        RemovalError::Store(error) => store(error),
    }
}

fn ipam(error: &IpamError) -> Row {
    match error {
        IpamError::PoolFull { .. } => row(Code::ResourceExhausted, "POOL_FULL"),
        IpamError::Taken { .. } => field(Code::AlreadyExists, "ADDRESS_TAKEN", "addresses"),
        _ => field(Code::InvalidArgument, "ADDRESS_NOT_ALLOWED", "addresses"),
    }
}

fn dataplane(error: &DataplaneError) -> Row {
    match error {
        DataplaneError::NetnsGone { .. } => {
            field(Code::InvalidArgument, "NETNS_NOT_FOUND", "netns_path")
        }
        DataplaneError::NotANetns { .. } => {
            field(Code::InvalidArgument, "NOT_A_NETNS", "netns_path")
        }
        DataplaneError::HostNetns { .. } => {
            field(Code::InvalidArgument, "HOST_NETNS", "netns_path")
        }
        DataplaneError::InterfaceExists { .. } => {
            field(Code::AlreadyExists, "INTERFACE_EXISTS", "interface")
        }
        DataplaneError::BridgeFull { .. } => row(Code::ResourceExhausted, "BRIDGE_FULL"),
        DataplaneError::PortTaken { .. } => {
            field(Code::AlreadyExists, "HOST_PORT_TAKEN", "port_mappings")
        }
        DataplaneError::Unsupported { .. } => row(Code::Unimplemented, "KERNEL_LACKS_FEATURE"),
        DataplaneError::Busy { .. } => retry(Code::Unavailable, "KERNEL_BUSY"),
        DataplaneError::Kernel { .. } => row(Code::Internal, "KERNEL_REFUSED"),
        DataplaneError::Exhausted { .. } => retry(Code::Unavailable, "SYSTEM_EXHAUSTED"),
        DataplaneError::Io { .. } => row(Code::Internal, "SYSTEM_FAILED"),
    }
}

fn store(error: &StoreError) -> Row {
    match error {
        StoreError::Unavailable(_) => retry(Code::Unavailable, "STORE_UNAVAILABLE"),
        StoreError::Failed { .. } => retry(Code::Unavailable, "STORE_FAILED"),
        StoreError::InUse { .. } => row(Code::Unavailable, "STORE_IN_USE"),
        StoreError::LeaseGone(_) => retry(Code::Unavailable, "LEASE_GONE"),
        StoreError::BadTransaction(_) => row(Code::Internal, "INTERNAL"),
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let row = table(&error);
        let mut details = ErrorDetails::new();
        let metadata = error_metadata::of(&error, row.field);
        details.set_error_info(row.reason, ERROR_DOMAIN, metadata);
        let message = shown(&error);
        match (&error, row.field) {
            (Error::Invalid(invalid), _) => add_violations(&mut details, invalid),
            (_, Some(field)) => {
                details.add_bad_request_violation(field, &message);
            }
            _ => {}
        }
        if row.retry {
            details.set_retry_info(Some(RETRY));
        }
        if row.code == Code::Internal {
            tracing::error!(reason = row.reason, error = %message, "request failed");
        }
        Status::with_error_details(row.code, message, details)
    }
}

/// Statuses travel in headers, of which HTTP/2 peers take some 16 KiB. A hostile request
/// can be wrong in thousands of places.
fn shown(error: &Error) -> String {
    const MAX_BYTES: usize = 4 << 10;
    let mut text = match error {
        Error::Invalid(invalid) if invalid.violations.len() > MAX_VIOLATIONS => {
            let violations = invalid.violations[..MAX_VIOLATIONS].to_vec();
            let omitted = invalid.omitted + invalid.violations.len() - MAX_VIOLATIONS;
            Invalid { violations, omitted }.to_string()
        }
        error => error.to_string(),
    };
    if text.len() > MAX_BYTES {
        let end = (0..=MAX_BYTES).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}

/// So many are named.
const MAX_VIOLATIONS: usize = 32;

fn add_violations(details: &mut ErrorDetails, invalid: &Invalid) {
    for v in invalid.violations.iter().take(MAX_VIOLATIONS) {
        details.add_bad_request_violation(&v.field, &v.problem);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::{HostPort, Protocol};

    #[test]
    fn violations_travel_with_field_and_reason() {
        let status = Status::from(Error::from(Invalid::field("mtu", "7 is too small")));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELD");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "mtu");
    }

    #[test]
    fn what_passes_by_itself_says_when_to_try_again() {
        let status = Status::from(Error::from(StoreError::Unavailable("gone".into())));
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }

    #[test]
    fn what_to_do_travels_as_a_hint() {
        let port = HostPort { port: 80, protocol: Protocol::Tcp, ip: None };
        let taken = DataplaneError::PortTaken { port };
        let details = Status::from(Error::from(taken)).get_error_details();
        let info = details.error_info().unwrap();
        assert!(info.metadata["hint"].contains("another host port"));
        assert_eq!(info.metadata["host_port"], "80");
    }

    #[test]
    fn a_flood_of_violations_is_cut() {
        let mut invalid = Invalid::new();
        for i in 0..10_000 {
            invalid.add(format!("labels[{i}]"), "bad");
        }
        let status = Status::from(Error::from(invalid));
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations.len(), 32);
        assert!(status.message().len() < 8 << 10, "{}", status.message().len());
    }
}
