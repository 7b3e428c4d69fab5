use std::time::SystemTime;

use netd_api::v1;
use serde::Serialize;

use super::{age, fields};
use crate::terminal::{Output, table};

/// Answer of `netd status`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Status {
    pub ready: bool,
    version: String,
    node: String,
    kernel: String,
    store: String,
    started_at: i64,
    networks: u32,
    endpoints: u32,
    attaching: u32,
    detaching: u32,
    collected: u64,
    components: Vec<Component>,
    capabilities: Vec<Capability>,
    drift: Vec<Drift>,
}

#[derive(Debug, Serialize)]
struct Component {
    name: String,
    ready: bool,
    reason: String,
    since: i64,
}

#[derive(Debug, Serialize)]
struct Capability {
    name: String,
    available: bool,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Drift {
    kind: String,
    repaired: u64,
}

impl From<v1::GetStatusResponse> for Status {
    fn from(s: v1::GetStatusResponse) -> Self {
        let component = |c: v1::Component| Component {
            name: c.name,
            ready: c.ready,
            reason: c.reason,
            since: c.since,
        };
        let capability = |c: v1::Capability| Capability {
            name: c.name,
            available: c.available,
            detail: c.detail,
        };
        Self {
            ready: s.ready,
            version: s.version,
            node: s.node,
            kernel: s.kernel,
            store: s.store,
            started_at: s.started_at,
            networks: s.networks,
            endpoints: s.endpoints,
            attaching: s.attaching,
            detaching: s.detaching,
            collected: s.collected,
            components: s.components.into_iter().map(component).collect(),
            capabilities: s.capabilities.into_iter().map(capability).collect(),
            drift: s
                .drift
                .into_iter()
                .map(|d| Drift { kind: d.kind, repaired: d.repaired })
                .collect(),
        }
    }
}

fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

impl Output for Status {
    fn text(&self) -> String {
        let now = SystemTime::now();
        let drift = self.drift.iter().filter(|d| d.repaired > 0);
        let drift: Vec<_> = drift.map(|d| format!("{} {}", d.repaired, d.kind)).collect();
        let mut text = fields(&[
            ("ready", yes_no(self.ready)),
            ("node", self.node.clone()),
            ("version", self.version.clone()),
            ("kernel", self.kernel.clone()),
            ("store", self.store.clone()),
            ("up for", age(self.started_at, now)),
            ("networks", self.networks.to_string()),
            (
                "endpoints",
                format!(
                    "{} ({} attaching, {} detaching)",
                    self.endpoints, self.attaching, self.detaching
                ),
            ),
            ("collected", self.collected.to_string()),
            ("put back", if drift.is_empty() { "nothing".to_owned() } else { drift.join(", ") }),
        ]);
        let rows = self
            .components
            .iter()
            .map(|c| vec![c.name.clone(), yes_no(c.ready), age(c.since, now), c.reason.clone()]);
        text.push('\n');
        text.push_str(&table(&["COMPONENT", "READY", "SINCE", "REASON"], rows));
        if self.capabilities.is_empty() {
            return text;
        }
        let rows = self.capabilities.iter();
        let rows = rows.map(|c| vec![c.name.clone(), yes_no(c.available), c.detail.clone()]);
        text.push('\n');
        text.push_str(&table(&["CAPABILITY", "THERE", "DETAIL"], rows));
        text
    }
}
