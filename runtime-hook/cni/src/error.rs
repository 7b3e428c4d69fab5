//! What can go wrong in a front, and the CNI code for each.

use std::{fmt, time::Duration};

use rustix::io::Errno;

use crate::status::{Code, Refusal, Violation};

/// Errors of every front.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// A version of the spec, or a command in it, that is not spoken.
    #[error("{0}")]
    Version(String),
    /// An environment variable that is missing or wrong.
    #[error("environment variable {variable}: {problem}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// The value and the rule.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("{what}: {reason}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// The system's word.
        reason: String,
    },
    /// The system is short of descriptors or memory: try again.
    #[error("{what}: {reason}; the system is short of it at the moment")]
    Exhausted {
        /// What was being done.
        what: &'static str,
        /// The system's word.
        reason: String,
    },
    /// Not the JSON that was expected.
    #[error("{0}")]
    Decode(String),
    /// Every field of the input that is wrong.
    #[error("invalid configuration: {}", joined(.0))]
    Config(Vec<Violation>),
    /// netd can't be talked to.
    #[error("can't reach netd at {socket}: {reason}")]
    Unreachable {
        /// Its socket.
        socket: String,
        /// Why not.
        reason: String,
    },
    /// The connection broke during a call: what netd did is not known.
    #[error("lost the connection to netd at {socket} during {operation}: {reason}")]
    Lost {
        /// Its socket.
        socket: String,
        /// The call.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// netd did not answer in time: what it did is not known.
    #[error("netd at {socket} did not answer {operation} within {after:?}")]
    Deadline {
        /// Its socket.
        socket: String,
        /// The call.
        operation: &'static str,
        /// The time given.
        after: Duration,
    },
    /// netd answers, but can't do its work.
    #[error("netd is not ready: {}", problems.join("; "))]
    NotReady {
        /// Each component that is not ready and why.
        problems: Vec<String>,
        /// Pods that run may be out of reach, too.
        limits_pods: bool,
    },
    /// netd refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// What the runtime remembers and what netd says differ.
    #[error("the attachment is not as the runtime remembers it: {}", .0.join("; "))]
    Mismatch(
        /// The differences.
        Vec<String>,
    ),
    /// An answer of netd that can't be used.
    #[error("netd's answer is unusable: {0}")]
    BadAnswer(String),
}

/// An existing endpoint or interface stands in the way.
pub(crate) const CODE_CONFLICT: u32 = 100;
/// The state of the endpoint or network forbids it; for CHECK: it has drifted.
pub(crate) const CODE_PRECONDITION: u32 = 101;
/// netd does not let this process call it.
pub(crate) const CODE_DENIED: u32 = 102;
/// netd failed, or its answer makes no sense.
pub(crate) const CODE_INTERNAL: u32 = 103;
/// This netd does not know the call: hook and daemon are of different versions.
pub(crate) const CODE_UNIMPLEMENTED: u32 = 104;
/// CHECK: netd and `prevResult` differ.
pub(crate) const CODE_MISMATCH: u32 = 105;

/// The CNI code for each gRPC status code (CNI spec 1.1.0, "Error"; 100 and up are
/// the plugin's own). `INVALID_ARGUMENT` is 4 instead when the offending field came
/// from the environment, `NOT_FOUND` is 7 in ADD, where only the network can be
/// missing; [`HookError::cni_code`] does both.
///
/// A full pool (`RESOURCE_EXHAUSTED`) is 11, "try again later": addresses come back
/// when pods end, and the runtime should go on trying.
pub(crate) const CNI_CODES: &[(Code, u32)] = &[
    (Code::InvalidArgument, 7),
    (Code::OutOfRange, 7),
    (Code::NotFound, 3),
    (Code::AlreadyExists, CODE_CONFLICT),
    (Code::FailedPrecondition, CODE_PRECONDITION),
    (Code::Aborted, 11),
    (Code::ResourceExhausted, 11),
    (Code::Unavailable, 11),
    (Code::DeadlineExceeded, 11),
    (Code::Cancelled, 11),
    (Code::PermissionDenied, CODE_DENIED),
    (Code::Unauthenticated, CODE_DENIED),
    (Code::Unimplemented, CODE_UNIMPLEMENTED),
    (Code::Internal, CODE_INTERNAL),
    (Code::DataLoss, CODE_INTERNAL),
    (Code::Unknown, CODE_INTERNAL),
];

/// Fields of the API whose value comes from the environment of a CNI plugin.
const FROM_ENVIRONMENT: [&str; 3] = ["sandbox_id", "netns_path", "interface"];

/// Where requested addresses and a MAC may come from.
const CNI_ARGS: &str = "CNI_ARGS";

impl HookError {
    /// The error of one field.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config(vec![Violation { field: field.into(), problem: problem.into() }])
    }

    /// A failed read or write.
    pub fn io(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::Io { what: what.into(), reason: reason.to_string() }
    }

    /// The same error, where the request's `fields` are from `CNI_ARGS`: what netd refuses of
    /// them is named so.
    pub(crate) fn blame_cni_args(mut self, fields: impl IntoIterator<Item = &'static str>) -> Self {
        if let Self::Refused(refusal) = &mut self {
            for field in fields {
                let from_args = |v: &&mut Violation| v.field.starts_with(field);
                for violation in refusal.violations.iter_mut().filter(from_args) {
                    violation.field = format!("{CNI_ARGS}: {}", violation.field);
                }
            }
        }
        self
    }

    /// The code of a CNI error result.
    pub(crate) fn cni_code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment { .. } => 4,
            Self::Io { .. } => 5,
            Self::Decode(_) => 6,
            Self::Config(_) => 7,
            Self::Unreachable { .. }
            | Self::Lost { .. }
            | Self::Deadline { .. }
            | Self::Exhausted { .. } => 11,
            Self::NotReady { limits_pods: false, .. } => 50,
            Self::NotReady { limits_pods: true, .. } => 51,
            Self::Mismatch(_) => CODE_MISMATCH,
            Self::BadAnswer(_) => CODE_INTERNAL,
            Self::Refused(refusal) => refused_code(refusal),
        }
    }

    /// What to do about it, and what else is known; may be empty.
    pub fn details(&self) -> String {
        match self {
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Deadline { .. } => {
                "is netd running? see `systemctl status netd` and `journalctl -u netd`, or where it is \
                 a pod `kubectl -n netd get pods -o wide`"
                    .into()
            }
            Self::NotReady { .. } => "see `netd status` and `journalctl -u netd`".into(),
            Self::Mismatch(_) => "the pod has to be recreated; see `netd endpoint list`".into(),
            Self::BadAnswer(_) => "are netd and netd-hook of the same version?".into(),
            Self::Refused(refusal) => refusal.details(),
            Self::Version(_)
            | Self::Environment { .. }
            | Self::Io { .. }
            | Self::Exhausted { .. }
            | Self::Decode(_)
            | Self::Config(_) => String::new(),
        }
    }
}

impl From<Refusal> for HookError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

fn refused_code(refusal: &Refusal) -> u32 {
    let environment = |v: &Violation| {
        FROM_ENVIRONMENT.contains(&v.field.as_str()) || v.field.starts_with(CNI_ARGS)
    };
    match refusal.code {
        Code::InvalidArgument if refusal.violations.iter().any(environment) => 4,
        Code::NotFound if refusal.operation == "Attach" => 7,
        code => {
            let row = CNI_CODES.iter().find(|(grpc, _)| *grpc == code);
            row.map_or(CODE_INTERNAL, |(_, cni)| *cni)
        }
    }
}

/// Violations as one line.
fn joined(violations: &[Violation]) -> String {
    let each: Vec<String> =
        violations.iter().map(|v| format!("{}: {}", v.field, v.problem)).collect();
    each.join("; ")
}

/// How much of a refused value is shown back: it can be megabytes of junk.
pub fn shown(value: &str) -> String {
    const MOST: usize = 64;
    let mut text: String = value.chars().take(MOST).flat_map(char::escape_debug).collect();
    if value.chars().nth(MOST).is_some() {
        text.push_str("...");
    }
    format!("\"{text}\"")
}

/// An error of the system in words: without libc there is nobody to ask for them.
pub fn system(error: Errno) -> String {
    let words = match error {
        Errno::PERM | Errno::ACCESS => "permission denied",
        Errno::NOENT => "there is no such file",
        Errno::IO => "input/output error",
        Errno::BADF => "it is closed",
        Errno::NOMEM => "out of memory",
        Errno::ISDIR => "it is a directory",
        Errno::MFILE | Errno::NFILE => "too many open files",
        Errno::NOSPC => "no space left on device",
        Errno::PIPE => "nobody reads it",
        Errno::CONNRESET => "the connection was reset",
        Errno::CONNREFUSED => "nobody listens on it",
        Errno::NOTSOCK => "it is no socket",
        _ => "failed",
    };
    format!("{words} (os error {})", error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: Code, operation: &'static str, field: &str) -> u32 {
        let violations = vec![Violation { field: field.into(), problem: "bad".into() }];
        let refusal = Refusal { operation, code, violations, ..Refusal::default() };
        HookError::Refused(Box::new(refusal)).cni_code()
    }

    #[test]
    fn a_bad_argument_is_blamed_on_where_it_came_from() {
        assert_eq!(refused(Code::InvalidArgument, "Attach", "mac"), 7);
        for field in FROM_ENVIRONMENT {
            assert_eq!(refused(Code::InvalidArgument, "Attach", field), 4);
        }
    }

    #[test]
    fn a_missing_network_is_configuration_and_a_missing_endpoint_an_unknown_container() {
        assert_eq!(refused(Code::NotFound, "Attach", ""), 7);
        assert_eq!(refused(Code::NotFound, "Check", ""), 3);
    }

    #[test]
    fn every_grpc_code_but_ok_has_a_row() {
        for n in 1..=16 {
            let code = Code::from_number(n);
            assert_eq!(CNI_CODES.iter().filter(|(c, _)| *c == code).count(), 1, "{code:?}");
        }
    }

    #[test]
    fn long_values_are_cut_and_control_characters_escaped() {
        let text = shown(&format!("a\n\u{1b}{}", "x".repeat(1 << 20)));
        assert!(text.len() < 100 && text.starts_with("\"a\\n\\u{1b}"), "{text}");
    }
}
