//! netd's "no": a gRPC status with its `google.rpc` details.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::error::Violation;

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
    /// Reads a status. Details that can't be decoded are left out: the code and the
    /// message are what counts.
    pub fn new(operation: &'static str, status: &Status) -> Self {
        let details = status.get_error_details();
        let mut refusal = Self {
            operation,
            code: status.code(),
            message: status.message().to_owned(),
            ..Self::default()
        };
        if let Some(info) = details.error_info() {
            refusal.reason.clone_from(&info.reason);
            refusal.metadata = info.metadata.clone().into_iter().collect();
            refusal.metadata.sort();
        }
        if let Some(bad) = details.bad_request() {
            let violation = |v: &tonic_types::FieldViolation| Violation {
                field: v.field.clone(),
                problem: v.description.clone(),
            };
            refusal.violations = bad.field_violations.iter().map(violation).collect();
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
    use tonic_types::ErrorDetails;

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
        let status =
            Status::with_error_details(Code::ResourceExhausted, "the pool is full", details);
        let refusal = Refusal::new("Attach", &status);
        assert_eq!(refusal.to_string(), "netd refused Attach (POOL_EXHAUSTED): the pool is full");
        assert_eq!(
            refusal.details(),
            "ResourceExhausted; POOL_EXHAUSTED; size=254; used=254; addresses[0]: not in any pool"
        );
    }

    #[test]
    fn a_status_without_details_still_says_what_and_why() {
        let refusal = Refusal::new("Detach", &Status::internal("disk full"));
        assert_eq!(refusal.to_string(), "netd refused Detach: disk full");
        assert_eq!(refusal.details(), "Internal");
    }
}
