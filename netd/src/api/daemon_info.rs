//! What `GetStatus` says about this daemon and its kernel besides the node's state.

use std::sync::{Arc, OnceLock};

/// Whether the kernel has a feature.
#[derive(Debug, Clone)]
pub(crate) struct Capability {
    /// The feature.
    pub name: String,
    /// Whether the kernel has it.
    pub available: bool,
    /// What does not work without it; empty when it is available.
    pub detail: String,
}

/// What stays the same while netd runs.
#[derive(Debug, Clone)]
pub(crate) struct DaemonInfo {
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// Results of trying the kernel's features; empty until that is done.
    pub capabilities: Arc<OnceLock<Vec<Capability>>>,
    /// Seconds since the Unix epoch.
    pub started_at: i64,
}
