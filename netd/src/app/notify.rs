//! What systemd is told: ready, why not, alive, stopping.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

/// Without a watchdog there is nothing to tell between changes.
const IDLE: Duration = Duration::from_secs(3600);

/// Follows readiness until `stop`. READY is sent at once: netd answers calls from now
/// on, also while a part of it is not ready.
pub async fn follow(mut ready: watch::Receiver<bool>, mut stop: watch::Receiver<bool>) {
    tell(&[NotifyState::Ready]);
    // Half of systemd's interval, so that one late turn is not fatal.
    let beat = sd_notify::watchdog_enabled().map_or(IDLE, |interval| interval / 2);
    loop {
        let status = match *ready.borrow_and_update() {
            true => "ready",
            false => "not ready: `netd status` says why",
        };
        tell(&[NotifyState::Status(status), NotifyState::Watchdog]);
        tokio::select! {
            changed = ready.changed() => if changed.is_err() { return },
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(beat) => {}
        }
    }
    tell(&[NotifyState::Stopping]);
}

/// Not run by systemd: nobody to tell.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
