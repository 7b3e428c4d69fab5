//! Work that is finished even if its caller goes away: memory, store and kernel would
//! disagree if a request that was cancelled stopped between two of them.

use tracing::Instrument as _;

use super::error::{Error, Result};

/// Runs `work` as a task of its own, in the caller's tracing span, and waits for it.
///
/// # Errors
/// The work's; [`Error::Internal`] if it panicked.
pub(super) async fn run_to_end<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let task = tokio::spawn(work.in_current_span());
    task.await.map_err(|e| Error::Internal(format!("{what}: {e}")))?
}
