//! Maps netd-tunnel's gRPC statuses to typed errors.

use std::path::{Path, PathBuf};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// One field that netd-tunnel refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Its path: `tunnel.listen[0]`, `set[3].subnets`.
    pub field: String,
    /// What is wrong with its value.
    pub rule: String,
}

/// Why netd-tunnel did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// netd-tunnel does not run, or listens elsewhere.
    #[error("netd-tunnel can't be reached at {socket}: {reason}; is netd-tunnel.service running?")]
    Unreachable {
        /// The path of its socket.
        socket: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// netd-tunnel did not answer in time.
    #[error("netd-tunnel at {socket} did not answer in time")]
    Deadline {
        /// The path of its socket.
        socket: PathBuf,
    },
    /// A value of the request is invalid.
    #[error("netd-tunnel refused: {message}")]
    Invalid {
        /// All violations, as text.
        message: String,
        /// The violations one by one.
        violations: Vec<FieldViolation>,
    },
    /// The device has no tunnel; it has to be configured first.
    #[error("netd-tunnel: {message}")]
    NoTunnel {
        /// Names the device or address.
        message: String,
    },
    /// Another socket has a port that the tunnel listens on.
    #[error("netd-tunnel: {message}")]
    PortTaken {
        /// The system's error.
        message: String,
    },
    /// Another program has the device, or a listen address is not this node's.
    #[error("netd-tunnel: {message}")]
    Taken {
        /// Names the device or address.
        message: String,
    },
    /// The system refused, or netd-tunnel has a defect.
    #[error("netd-tunnel failed ({code:?}): {message}")]
    Failed {
        /// The gRPC status code.
        code: Code,
        /// The status's message.
        message: String,
    },
}

/// Whether the status comes from a broken connection rather than from netd-tunnel.
pub(super) fn is_broken(status: &Status) -> bool {
    let transport = std::error::Error::source(status).is_some();
    matches!(status.code(), Code::Unavailable) || (transport && status.code() != Code::Ok)
}

pub(super) fn of(socket: &Path, status: &Status) -> TunnelError {
    let message = status.message().to_owned();
    match status.code() {
        _ if is_broken(status) => {
            let mut reason = message;
            let mut source = std::error::Error::source(status);
            while let Some(cause) = source {
                reason = format!("{reason}: {cause}");
                source = cause.source();
            }
            TunnelError::Unreachable { socket: socket.to_owned(), reason }
        }
        Code::InvalidArgument => TunnelError::Invalid { violations: violations(status), message },
        Code::NotFound => TunnelError::NoTunnel { message },
        Code::FailedPrecondition if reason(status) == "LISTEN_ADDRESS_TAKEN" => {
            TunnelError::PortTaken { message }
        }
        Code::FailedPrecondition => TunnelError::Taken { message },
        code => TunnelError::Failed { code, message },
    }
}

/// The stable reason; empty: none was said.
fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn violations(status: &Status) -> Vec<FieldViolation> {
    let request = status.get_details_bad_request();
    let all = request.map(|request| request.field_violations).unwrap_or_default();
    let all = all.into_iter();
    all.map(|v| FieldViolation { field: v.field, rule: v.description }).collect()
}
