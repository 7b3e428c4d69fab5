//! One event of this machine's Node, as the API takes it. Pure.

use std::time::SystemTime;

use serde_json::{Value, json};

/// Characters of a message; the API server takes 1,024 bytes at most.
const MAX_MESSAGE: usize = 250;

/// Where events of Nodes are.
pub(crate) const NAMESPACE: &str = "default";

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Started,
    /// With the reason.
    Problem(String),
    Recovered,
}

/// An event of a part of netd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    pub(crate) kind: Kind,
    pub(crate) part: String,
    /// When it was first to be reported: its name is made of that, so that it is in the API once.
    pub(crate) at: SystemTime,
}

impl NodeEvent {
    /// As an object of the API.
    pub(crate) fn object(&self, node: &str) -> Value {
        let part = &self.part;
        let (kind, reason, message) = match &self.kind {
            Kind::Started => {
                ("Normal", "NetdStarted", format!("netd {} started", env!("CARGO_PKG_VERSION")))
            }
            Kind::Problem(why) => ("Warning", "NetdProblem", format!("{part}: {why}")),
            Kind::Recovered => ("Normal", "NetdRecovered", format!("{part}: works again")),
        };
        let message: String = message.replace('\n', "; ").chars().take(MAX_MESSAGE).collect();
        let time = humantime::format_rfc3339_seconds(self.at).to_string();
        let since = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {
                "name": format!("{node}.{:x}", since.as_nanos()), "namespace": NAMESPACE,
            },
            // kubectl finds a Node's events by its name in the place of the uid, as kubelet has it.
            "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
            "type": kind, "reason": reason, "message": message, "count": 1,
            "firstTimestamp": time, "lastTimestamp": time,
            "source": { "component": "netd", "host": node },
            "reportingComponent": "netd", "reportingInstance": node,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_event_is_one_of_the_node_and_short() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let kind = Kind::Problem("é\n".repeat(900));
        let object = NodeEvent { kind, part: "overlay".into(), at }.object("n1");
        assert_eq!(object["involvedObject"]["uid"], "n1");
        assert_eq!(object["type"], "Warning");
        assert_eq!(object["firstTimestamp"], "1970-01-01T00:00:01Z");
        assert_eq!(object["metadata"]["name"], "n1.3b9aca00");
        let message = object["message"].as_str().unwrap();
        assert!(message.starts_with("overlay: é; é") && message.len() <= 1024, "{message}");
    }
}
