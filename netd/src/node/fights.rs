//! Tells of objects that another program changes as fast as netd repairs them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{core::Node, queue::Target};

impl Node {
    /// Shows in the status what another program changes as fast as netd repairs it, and logs it
    /// once a minute, until netd ends.
    pub(super) async fn tell_of_fights_forever(self: Arc<Self>) {
        const LOOK_INTERVAL: Duration = Duration::from_secs(1);
        const LOG_INTERVAL: Duration = Duration::from_secs(60);
        let mut told: HashMap<Target, Instant> = HashMap::new();
        let part = |target: &Target| format!("fought-over/{target}");
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let fights = self.queue.fights();
            told.retain(|target, _| {
                let goes_on = fights.contains(target);
                if !goes_on {
                    self.health.forget(&part(target));
                }
                goes_on
            });
            for target in fights {
                let due = told.get(&target).is_none_or(|since| since.elapsed() >= LOG_INTERVAL);
                if due {
                    let text = format!(
                        "{target} is being fought over: another program changes it as fast as netd \
                         repairs it; netd now looks at it every few seconds at most"
                    );
                    if told.contains_key(&target) {
                        tracing::warn!(object = %target, "{text}");
                    }
                    self.health.advise(&part(&target), text);
                    told.insert(target, Instant::now());
                }
            }
        }
    }
}
