//! How much one hook, and all of them together, may take.

use std::time::Duration;

/// Connections served at a time; more wait in the socket's queue.
pub(super) const MAX_CONNECTIONS: u32 = 1024;
/// Time for a request to arrive whole, counted from the connection or the last answer, and
/// for an answer to be taken.
pub(super) const FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time that a call may take: the longest that a CNI configuration can ask for.
pub(super) const MAX_CALL_TIME: Duration = Duration::from_secs(600);
