//! What is wrong with a lease, a key or a node's own facts.

/// Why a lease can't be routed to, with the field, its value and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct PeerProblem {
    /// `BackendType`, `BackendData.VtepMAC`, `PublicIP`, ...
    pub field: &'static str,
    /// What is wrong.
    pub problem: String,
}

impl PeerProblem {
    /// A problem with a field.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}
