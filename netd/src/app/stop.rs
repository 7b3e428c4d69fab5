//! The signals that end netd.

use tokio::sync::watch;

use super::error::ServeError;

/// A channel whose value becomes true on SIGTERM or SIGINT.
pub(super) fn stop_signal() -> Result<watch::Receiver<bool>, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; pods keep their network");
        sender.send_replace(true);
        // The sender must outlive every receiver: a closed channel would look like a stop.
        std::future::pending::<()>().await;
    });
    Ok(receiver)
}

/// Completes when `stop` is true.
pub(super) async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the sender was dropped, which happens only with the runtime.
    let _ = stop.wait_for(|stop| *stop).await;
}
