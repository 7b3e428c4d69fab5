//! Watches the threads that do the kernel's work. One that hangs returns no error, so nothing
//! else would show it: here it makes the node not ready, and at last ends netd by systemd's
//! watchdog, which [`super::Health::silence`] feeds.

use std::{sync::Arc, time::Duration};

use super::core::Node;
use netd_dataplane::{EventsTrouble, Silence};

/// Shorter than the silence after which a thread hangs.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
const WORKERS: &str = "workers";
/// Also where [`Node::follow_drift`] says that no events can come any more.
pub(super) const EVENTS: &str = "events";

impl Node {
    /// Looks at the threads until netd ends.
    pub(super) async fn watch_threads_forever(self: Arc<Self>) {
        loop {
            self.watch_threads();
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn watch_threads(&self) {
        let hanging = self.dataplane.hanging();
        match hanging.is_empty() {
            true => self.health.good(WORKERS),
            false => self.health.bad(WORKERS, in_words(&hanging)),
        }
        let trouble = self.dataplane.events_trouble();
        if hanging.is_empty() && !matches!(trouble, Some(EventsTrouble::Hangs(_))) {
            self.health.beat();
        }
        match trouble {
            None => self.health.good(EVENTS),
            Some(trouble) => self.health.advise(EVENTS, unheard(&trouble)),
        }
    }
}

fn in_words(hanging: &[Silence]) -> String {
    let threads: Vec<_> = hanging
        .iter()
        .map(|silence| format!("{} for {} s", silence.thread, silence.time.as_secs()))
        .collect();
    format!(
        "these threads hang: {}; the kernel or a program does not answer them (dmesg, \
         /proc/PID/task/*/stack); what needs them fails until they go on or netd is restarted",
        threads.join(", ")
    )
}

fn unheard(trouble: &EventsTrouble) -> String {
    let why = match trouble {
        EventsTrouble::Failed(why) => format!("{why}; trying again"),
        EventsTrouble::Hangs(time) => {
            format!("the thread netd-events has hung for {} s", time.as_secs())
        }
    };
    format!("changes that other programs make are not noticed: {why}")
}
