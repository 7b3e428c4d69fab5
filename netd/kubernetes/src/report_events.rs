//! Reports to the API what does not work on this node.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::timeout};

use crate::{
    api::ApiServer,
    events::{EventReporter, Problems},
    pace::Pace,
};

/// Between two looks without news: what has lasted is due then.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between attempts while the API takes nothing.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// See [`MIN_RETRY_INTERVAL`].
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Runs until the sender of the problems is gone.
pub(crate) async fn run(
    api: Arc<ApiServer>,
    node: String,
    mut problems: watch::Receiver<Problems>,
) {
    let mut reporter = EventReporter::new(Instant::now(), SystemTime::now());
    let mut pace = Pace::new(MIN_RETRY_INTERVAL, MAX_RETRY_INTERVAL);
    let mut is_known_to_fail = false;
    loop {
        let now = Instant::now();
        let current = problems.borrow_and_update().clone();
        let next = reporter.next(&current, now, SystemTime::now());
        if let Some(event) = next.filter(|_| pace.is_due(now)) {
            match api.create_event(event.object(&node)).await {
                Ok(()) => {
                    reporter.reported(&event, now);
                    pace.reset();
                    is_known_to_fail = false;
                    continue;
                }
                Err(error) => {
                    reporter.refused(&event, now);
                    pace.attempted(now, fastrand::f64());
                    if !std::mem::replace(&mut is_known_to_fail, true) {
                        tracing::warn!(%error, "Node {node} gets no events: {error}");
                    }
                }
            }
        }
        if let Ok(Err(_)) = timeout(INTERVAL, problems.changed()).await {
            return;
        }
    }
}
