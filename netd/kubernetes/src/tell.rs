//! Tells the API what does not work on this node.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::timeout};

use crate::{
    api::ApiServer,
    events::{Problems, Teller},
    pace::Pace,
};

/// Between two looks without news: what has lasted is due then.
const INTERVAL: Duration = Duration::from_secs(5);
/// Between attempts while the API takes nothing.
const FIRST_RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// Runs until nobody has the problems' other end.
pub(crate) async fn run(
    api: Arc<ApiServer>,
    node: String,
    mut problems: watch::Receiver<Problems>,
) {
    let mut teller = Teller::new(Instant::now());
    let mut pace = Pace::new(FIRST_RETRY, LONGEST_RETRY);
    let mut is_known_to_fail = false;
    loop {
        let now = Instant::now();
        let next = teller.next(&problems.borrow_and_update().clone(), now);
        if let Some(event) = next.filter(|_| pace.is_due(now)) {
            match api.create_event(event.object(&node, SystemTime::now())).await {
                Ok(()) => {
                    teller.told(event, now);
                    pace.reset();
                    is_known_to_fail = false;
                    continue;
                }
                Err(error) => {
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
