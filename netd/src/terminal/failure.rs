//! Errors for people: one line that says what failed, then the fields and a hint.

use std::{io, path::PathBuf};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::table::printable;
use crate::metrics::code_name;
use netd_domain::Invalid;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The socket can't be connected to.
    Unreachable { socket: PathBuf, reason: io::Error },
    /// netd answered with an error.
    Refused(Box<Status>),
    /// The configuration has errors.
    Invalid(Invalid),
    /// Any other failure: the whole text, without "error: ".
    Other(String),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl Failure {
    /// The lines to print.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Unreachable { socket, reason } => unreachable(socket, reason),
            Self::Refused(status) => refused(status),
            Self::Invalid(invalid) => {
                let count = invalid.violations.len() + invalid.omitted;
                let plural = if count == 1 { "error" } else { "errors" };
                let mut lines = vec![format!("error: {count} {plural} in the configuration")];
                let fields = invalid.violations.iter();
                lines.extend(
                    fields.map(|v| format!("  {}: {}", printable(&v.field), printable(&v.problem))),
                );
                if invalid.omitted > 0 {
                    lines.push(format!("  and {} more", invalid.omitted));
                }
                lines
            }
            Self::Other(text) => vec![format!("error: {text}")],
        }
    }
}

fn unreachable(socket: &std::path::Path, reason: &io::Error) -> Vec<String> {
    let hint = match reason.kind() {
        io::ErrorKind::PermissionDenied => {
            "run this as root or as a member of the socket's group (socket_group)"
        }
        _ => "is netd running? See: systemctl status netd; another socket: --socket or NETD_SOCKET",
    };
    vec![
        format!("error: netd can't be reached at {}: {reason}", socket.display()),
        format!("  hint: {hint}"),
    ]
}

fn refused(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let info = details.error_info();
    let code = code_name(status.code());
    let kind = match info {
        Some(info) if !info.reason.is_empty() => format!("{code}, {}", printable(&info.reason)),
        _ => code.to_owned(),
    };
    let mut lines = vec![format!("error: {} ({kind})", printable(status.message()))];
    if let Some(bad) = details.bad_request() {
        let fields = bad.field_violations.iter();
        lines.extend(
            fields.map(|v| format!("  {}: {}", printable(&v.field), printable(&v.description))),
        );
    }
    if let Some(failed) = details.precondition_failure() {
        let all = failed.violations.iter();
        lines.extend(
            all.map(|v| format!("  {}: {}", printable(&v.subject), printable(&v.description))),
        );
    }
    let told = info.and_then(|i| i.metadata.get("hint")).map(|hint| printable(hint));
    let hint = told.or_else(|| general_hint(status.code()).map(str::to_owned));
    lines.extend(hint.map(|h| format!("  hint: {h}")));
    lines
}

fn general_hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unavailable => Some("try again; netd status says what is not ready"),
        Code::DeadlineExceeded | Code::Cancelled => {
            Some("netd did not answer in time; see netd status, or give more with --timeout")
        }
        Code::Unimplemented => Some("this netd is of another version; see netd status"),
        Code::Internal | Code::Unknown => Some("see netd's log: journalctl -u netd"),
        _ => None,
    }
}
