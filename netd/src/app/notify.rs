//! Tells systemd that netd is ready, alive (watchdog) or stopping.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;

/// The interval of status messages when systemd has no watchdog for netd.
const IDLE_INTERVAL: Duration = Duration::from_secs(3600);

/// Reports until `stop` becomes true. READY is sent at once, because netd answers calls
/// from now on, even while a part of it is not ready.
pub(super) async fn follow(mut ready: watch::Receiver<bool>, mut stop: watch::Receiver<bool>) {
    tell(&[NotifyState::Ready]);
    // Half of systemd's interval, so that one late message does no harm.
    let beat = sd_notify::watchdog_enabled().map_or(IDLE_INTERVAL, |interval| interval / 2);
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

/// Does nothing when systemd does not run netd.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "could not notify systemd");
    }
}
