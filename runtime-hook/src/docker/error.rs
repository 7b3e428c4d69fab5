//! What a call of dockerd's returns, and why it was refused.

use std::fmt::Display;

use hyper::StatusCode;
use serde_json::Value;

use crate::error::HookError;

/// The JSON document that answers a call.
pub(super) type DriverResult = Result<Value, DriverError>;

/// Why a call was refused. `docker` prints the message to its user.
#[derive(Debug)]
pub(super) struct DriverError {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl DriverError {
    /// A field or an option of the request is wrong: its name, then its value and the rule.
    pub(super) fn field(field: &str, problem: impl Display) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: format!("{field}: {problem}") }
    }

    pub(super) fn internal(message: String) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message }
    }
}

impl From<HookError> for DriverError {
    fn from(error: HookError) -> Self {
        Self::internal(error.to_string())
    }
}
