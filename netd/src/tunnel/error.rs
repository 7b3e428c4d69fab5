//! Statuses of netd-tunnel's become typed errors.

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
    /// It does not run, or not there.
    #[error("netd-tunnel can't be reached at {socket}: {reason}; is netd-tunnel.service running?")]
    Unreachable {
        /// Where it was looked for.
        socket: PathBuf,
        /// The system's word.
        reason: String,
    },
    /// It runs, but does not answer.
    #[error("netd-tunnel at {socket} did not answer in time")]
    Deadline {
        /// Where it listens.
        socket: PathBuf,
    },
    /// Values are wrong.
    #[error("netd-tunnel refused: {message}")]
    Invalid {
        /// All of them in words.
        message: String,
        /// Each.
        violations: Vec<FieldViolation>,
    },
    /// The device has no tunnel: it is to be configured first.
    #[error("netd-tunnel: {message}")]
    NoTunnel {
        /// Says which.
        message: String,
    },
    /// The device or a listen address is somebody else's, or not this node's.
    #[error("netd-tunnel: {message}")]
    Taken {
        /// Says which.
        message: String,
    },
    /// The system refused, or a fault of netd-tunnel's.
    #[error("netd-tunnel failed ({code:?}): {message}")]
    Failed {
        /// gRPC's.
        code: Code,
        /// In words.
        message: String,
    },
}

/// Whether a status is the connection's, not an answer.
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
        Code::FailedPrecondition => TunnelError::Taken { message },
        code => TunnelError::Failed { code, message },
    }
}

fn violations(status: &Status) -> Vec<FieldViolation> {
    let request = status.get_details_bad_request();
    let all = request.map(|request| request.field_violations).unwrap_or_default();
    let all = all.into_iter();
    all.map(|v| FieldViolation { field: v.field, rule: v.description }).collect()
}
