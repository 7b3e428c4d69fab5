//! A request to the store, with an end.

use std::{future::Future, time::Duration};

use netd_store::StoreError;
use tokio::time::timeout;

/// The answer, if it comes within `limit`.
///
/// # Errors
/// The store's; `Unavailable` without an answer.
pub(super) async fn in_time<T>(
    limit: Duration,
    request: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match timeout(limit, request).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {limit:?}"))),
    }
}
