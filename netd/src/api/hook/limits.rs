//! How much one hook, and all of them together, may take.

use std::time::Duration;

use crate::api::transport::descriptors;

/// Connections served at a time, where enough descriptors are allowed; more wait in the
/// socket's queue.
const MAX_CONNECTIONS: u32 = 1024;
/// Each takes two descriptors while it brings a namespace, and there are other connections.
const DESCRIPTORS_EACH: u64 = 4;

/// Connections served at a time by this process.
pub(super) fn max_connections() -> u32 {
    let allowed = descriptors() / DESCRIPTORS_EACH;
    u32::try_from(allowed).unwrap_or(MAX_CONNECTIONS).clamp(8, MAX_CONNECTIONS)
}

/// Time for a request to arrive whole, counted from the connection or the last answer, and
/// for an answer to be taken.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that a call may take: the longest that a CNI configuration can ask for.
pub(super) const MAX_CALL_TIME: Duration = Duration::from_secs(600);
