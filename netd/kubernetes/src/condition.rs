//! The Node's condition NetworkUnavailable. Pure.
//!
//! While it is "True" the scheduler sends the node no pods, so a moment of being not ready, as
//! after a restart of netd, does not make it so.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

const TYPE: &str = "NetworkUnavailable";
/// So long the node may be not ready before its condition says it.
pub(crate) const GRACE: Duration = Duration::from_secs(30);
/// Characters of a reason that are shown.
const MAX_MESSAGE: usize = 500;

/// One of a Node's conditions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
    message: String,
    #[serde(rename = "lastTransitionTime")]
    last_transition: Option<String>,
}

impl Condition {
    pub(crate) fn is_network_unavailable(&self) -> bool {
        self.kind == TYPE
    }

    /// What the condition is to say now; `None`: it is right as it is, or it is too early to
    /// say. `not_ready_for`: how long the node has not been ready.
    pub(crate) fn wanted(
        current: Option<&Self>,
        readiness: &Result<(), String>,
        not_ready_for: Duration,
    ) -> Option<Self> {
        let (status, reason, message) = match readiness {
            Ok(()) => ("False", "NetdIsReady", "netd is ready on this node".to_owned()),
            Err(_) if not_ready_for < GRACE => return None,
            Err(why) => {
                let first: String = why.replace('\n', "; ").chars().take(MAX_MESSAGE).collect();
                ("True", "NetdIsNotReady", format!("netd is not ready: {first}"))
            }
        };
        let says = |c: &Self| c.status == status && c.reason == reason && c.message == message;
        if current.is_some_and(says) {
            return None;
        }
        let same = current.filter(|c| c.status == status);
        Some(Self {
            kind: TYPE.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            last_transition: same.and_then(|c| c.last_transition.clone()),
        })
    }

    /// As the API takes it. `now`: RFC 3339, in whole seconds.
    pub(crate) fn json(&self, now: &str) -> Value {
        json!({
            "type": self.kind,
            "status": self.status,
            "reason": self.reason,
            "message": self.message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": self.last_transition.as_deref().unwrap_or(now),
        })
    }
}
