//! Tells systemd that netd is ready, alive (watchdog) or stopping.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::node::Node;

/// The interval of status messages when systemd has no watchdog for netd.
const IDLE_INTERVAL: Duration = Duration::from_secs(3600);

/// The watchdog is not fed when the node's threads have not been seen to work for this long:
/// systemd then starts netd again, and pods keep their network.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(20);

/// Reports until `stop` becomes true. READY is sent at once, because netd answers calls
/// from now on, even while a part of it is not ready.
pub(super) async fn follow(node: Arc<Node>, mut stop: watch::Receiver<bool>) {
    let mut ready = node.health().watch();
    tell(vec![NotifyState::Ready]).await;
    // Half of systemd's interval, so that one late message does no harm.
    let beat = sd_notify::watchdog_enabled().map_or(IDLE_INTERVAL, |interval| interval / 2);
    loop {
        let status = match *ready.borrow_and_update() {
            true => "ready",
            false => "not ready: `netd status` says why",
        };
        let mut beat_or_not = vec![NotifyState::Status(status)];
        if node.health().silence() < MAX_SILENCE {
            beat_or_not.push(NotifyState::Watchdog);
        }
        tell(beat_or_not).await;
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(beat) => {}
        }
    }
    stopping().await;
}

/// Says that netd ends. A systemd that does not listen keeps it from nothing.
pub(super) async fn stopping() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let told = tokio::time::timeout(PATIENCE, tell(vec![NotifyState::Stopping])).await;
    if told.is_err() {
        tracing::debug!("systemd does not read netd's messages");
    }
}

/// Does nothing when systemd does not run netd. On a thread of its own: sending waits while
/// systemd does not read, and calls must not wait with it.
async fn tell(state: Vec<NotifyState<'static>>) {
    let told = tokio::task::spawn_blocking(move || sd_notify::notify(&state)).await;
    if let Ok(Err(error)) = told {
        tracing::debug!(%error, "could not notify systemd");
    }
}
