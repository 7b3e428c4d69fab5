//! Labels. Their values are fixed or come from the configuration, which bounds the number
//! of series.

use std::fmt::Write as _;

use ipnet::IpNet;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use netd_domain::NetworkName;

/// An operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// EndpointService.Attach
    Attach,
    /// EndpointService.Detach
    Detach,
    /// EndpointService.Check
    Check,
    /// EndpointService.CreateEndpoint
    CreateEndpoint,
    /// EndpointService.Join
    Join,
    /// EndpointService.Leave
    Leave,
    /// EndpointService.Publish
    Publish,
    /// NetworkService.ReserveAddress
    ReserveAddress,
    /// NetworkService.ReleaseAddress
    ReleaseAddress,
    /// NetworkService.CreateNetwork
    CreateNetwork,
    /// NetworkService.DeleteNetwork
    DeleteNetwork,
    /// NetworkService.SetPodAccess
    SetPodAccess,
    /// SandboxService.Synchronize
    Synchronize,
    /// SandboxService.Annotate
    Annotate,
}

/// A step of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The whole operation.
    Total,
    /// Checking the request and opening the namespace.
    Validate,
    /// Choosing addresses and recording the intent.
    IpamStore,
    /// Links, addresses, routes.
    Kernel,
    /// nftables elements.
    Firewall,
}

macro_rules! label {
    ($name:ident { $($variant:ident => $text:literal),* $(,)? }) => {
        impl $name {
            /// The name in metrics and in the log.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
                encoder.write_str(self.name())
            }
        }
    };
}

label!(Verb {
    Attach => "attach",
    Detach => "detach",
    Check => "check",
    CreateEndpoint => "create_endpoint",
    Join => "join",
    Leave => "leave",
    Publish => "publish",
    ReserveAddress => "reserve_address",
    ReleaseAddress => "release_address",
    CreateNetwork => "create_network",
    DeleteNetwork => "delete_network",
    SetPodAccess => "set_pod_access",
    Synchronize => "synchronize",
    Annotate => "annotate",
});

label!(Step {
    Total => "total",
    Validate => "validate",
    IpamStore => "ipam_store",
    Kernel => "kernel",
    Firewall => "firewall",
});

/// A gRPC code by its name in the specification: `RESOURCE_EXHAUSTED`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Code(i32);

impl From<tonic::Code> for Code {
    fn from(code: tonic::Code) -> Self {
        Self(code as i32)
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        encoder.write_str(code_name(tonic::Code::from_i32(self.0)))
    }
}

/// The name of a gRPC code in its specification.
pub(crate) fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code::*;
    match code {
        Ok => "OK",
        Cancelled => "CANCELLED",
        Unknown => "UNKNOWN",
        InvalidArgument => "INVALID_ARGUMENT",
        DeadlineExceeded => "DEADLINE_EXCEEDED",
        NotFound => "NOT_FOUND",
        AlreadyExists => "ALREADY_EXISTS",
        PermissionDenied => "PERMISSION_DENIED",
        ResourceExhausted => "RESOURCE_EXHAUSTED",
        FailedPrecondition => "FAILED_PRECONDITION",
        Aborted => "ABORTED",
        OutOfRange => "OUT_OF_RANGE",
        Unimplemented => "UNIMPLEMENTED",
        Internal => "INTERNAL",
        Unavailable => "UNAVAILABLE",
        DataLoss => "DATA_LOSS",
        Unauthenticated => "UNAUTHENTICATED",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StepLabels {
    pub verb: Verb,
    pub step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OperationLabels {
    pub verb: Verb,
    pub code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabel {
    pub state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct KindLabel {
    pub kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PoolLabels {
    pub network: String,
    pub subnet: String,
}

impl PoolLabels {
    pub(super) fn new(network: &NetworkName, subnet: IpNet) -> Self {
        Self { network: network.to_string(), subnet: subnet.to_string() }
    }
}
