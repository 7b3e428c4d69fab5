//! The daemon as a whole.

use crate::config::Config;

/// Why netd could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The daemon's parts are not put together in this build.
    #[error("not wired yet")]
    NotWired,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(_config: Config) -> Result<(), ServeError> {
    Err(ServeError::NotWired)
}
