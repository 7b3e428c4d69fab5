//! netd's "no": a gRPC status with its `google.rpc` details.

use std::collections::BTreeMap;
use std::fmt;

use netd_api::ttrpc::Status;
use prost::{Enumeration, Message};

/// One field that can't be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field as the caller wrote it: `runtimeConfig.ips[0]`.
    pub field: String,
    /// The value, what is wrong with it, and what would be right.
    pub problem: String,
}

/// gRPC's status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // they are known by their names
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// The code with this number; `Unknown` if there is none.
    pub fn from_number(number: i32) -> Self {
        Self::try_from(number).unwrap_or(Self::Unknown)
    }
}

/// `google.rpc.ErrorInfo` without its domain.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// `google.rpc.BadRequest`.
#[derive(Clone, PartialEq, Message)]
struct BadRequest {
    #[prost(message, repeated, tag = "1")]
    field_violations: Vec<FieldViolation>,
}

/// `google.rpc.BadRequest.FieldViolation`.
#[derive(Clone, PartialEq, Message)]
struct FieldViolation {
    #[prost(string, tag = "1")]
    field: String,
    #[prost(string, tag = "2")]
    description: String,
}

/// Why netd refused a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The call: "Attach", "Detach", ...
    pub operation: &'static str,
    /// The status code.
    pub code: Code,
    /// What netd said.
    pub message: String,
    /// `ErrorInfo.reason`: `POOL_EXHAUSTED`, ...; empty: none was sent.
    pub reason: String,
    /// `ErrorInfo.metadata`, in the order of the keys.
    pub metadata: Vec<(String, String)>,
    /// `BadRequest.field_violations`.
    pub violations: Vec<Violation>,
}

impl Default for Refusal {
    fn default() -> Self {
        Self {
            operation: "",
            code: Code::Unknown,
            message: String::new(),
            reason: String::new(),
            metadata: Vec::new(),
            violations: Vec::new(),
        }
    }
}

impl Refusal {
    /// Reads a status of gRPC; `details` is an encoded `google.rpc.Status`.
    pub fn new(operation: &'static str, code: Code, message: String, details: &[u8]) -> Self {
        let details = Status::decode(details).unwrap_or_default().details;
        Self::of_status(operation, Status { code: code as i32, message, details })
    }

    /// Reads a status. Details that can't be decoded are left out: the code and the message
    /// are what counts.
    pub(crate) fn of_status(operation: &'static str, status: Status) -> Self {
        let (code, message) = (Code::from_number(status.code), status.message);
        let mut refusal = Self { operation, code, message, ..Self::default() };
        for any in status.details {
            match any.type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") => {
                    let info = ErrorInfo::decode(&*any.value).unwrap_or_default();
                    refusal.reason = info.reason;
                    refusal.metadata = info.metadata.into_iter().collect();
                }
                Some("google.rpc.BadRequest") => {
                    let bad = BadRequest::decode(&*any.value).unwrap_or_default();
                    let violation =
                        |v: FieldViolation| Violation { field: v.field, problem: v.description };
                    refusal.violations.extend(bad.field_violations.into_iter().map(violation));
                }
                _ => {}
            }
        }
        refusal
    }

    /// The code, the reason, its metadata and the violations as one line.
    pub fn details(&self) -> String {
        let mut parts = vec![format!("{:?}", self.code)];
        if !self.reason.is_empty() {
            parts.push(self.reason.clone());
        }
        parts.extend(self.metadata.iter().map(|(k, v)| format!("{k}={v}")));
        parts.extend(self.violations.iter().map(|v| format!("{}: {}", v.field, v.problem)));
        parts.join("; ")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "netd refused {}", self.operation)?;
        if !self.reason.is_empty() {
            write!(f, " ({})", self.reason)?;
        }
        write!(f, ": {}", self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, StatusExt as _};

    /// As a client with tonic reads it.
    fn read(operation: &'static str, status: &tonic::Status) -> Refusal {
        let code = Code::from_number(status.code() as i32);
        Refusal::new(operation, code, status.message().to_owned(), status.details())
    }

    #[test]
    fn reason_metadata_and_violations_survive_the_wire_format() {
        let mut details = ErrorDetails::new();
        let metadata = [("used".to_owned(), "254".to_owned()), ("size".into(), "254".into())];
        details.set_error_info(
            "POOL_EXHAUSTED",
            "netd",
            metadata.into_iter().collect::<std::collections::HashMap<_, _>>(),
        );
        details.add_bad_request_violation("addresses[0]", "not in any pool");
        let (code, text) = (tonic::Code::ResourceExhausted, "the pool is full");
        let refusal = read("Attach", &tonic::Status::with_error_details(code, text, details));
        assert_eq!(refusal.to_string(), "netd refused Attach (POOL_EXHAUSTED): the pool is full");
        assert_eq!(
            refusal.details(),
            "ResourceExhausted; POOL_EXHAUSTED; size=254; used=254; addresses[0]: not in any pool"
        );
    }

    #[test]
    fn a_status_without_details_still_says_what_and_why() {
        let refusal = read("Detach", &tonic::Status::internal("disk full"));
        assert_eq!(refusal.to_string(), "netd refused Detach: disk full");
        assert_eq!(refusal.details(), "Internal");
        assert_eq!(Refusal::new("Detach", Code::Internal, "x".into(), b"junk").reason, "");
    }

    #[test]
    fn codes_are_grpc_s() {
        for number in 0..=16 {
            let (ours, theirs) = (Code::from_number(number), tonic::Code::from_i32(number));
            assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
            assert_eq!(ours as i32, number);
        }
        assert_eq!(Code::from_number(17), Code::Unknown);
        assert_eq!(Code::from_number(-1), Code::Unknown);
    }
}
