//! What the own Node's annotations and its condition are to say.

use std::time::{Duration, UNIX_EPOCH};

use netd_cluster::membership::source::Now;
use serde_json::{Map, Value, json};

use super::{OwnNode, Reconciler};
use crate::{annotations::Addresses, condition::Condition};

impl Reconciler {
    /// The difference between what the Node says and what it is to say; `None`: there is none.
    pub(super) fn patch(&self, now: Now) -> Option<Value> {
        let OwnNode::There(node) = &self.own else { return None };
        let mut patch = Map::new();
        // A Node without a podCIDR would be an error in every flannel's log. What was announced
        // before the start may be another machine's address by now.
        if let Some(attrs) = self.attrs.as_ref().filter(|_| self.announced && self.held.is_some()) {
            let (overwrites, _) = self.settings.prefix.overwrites(&node.annotations);
            let changes = self.settings.prefix.changes(&node.annotations, attrs, overwrites);
            if !changes.is_empty() {
                patch.insert("metadata".to_owned(), json!({ "annotations": changes }));
            }
        }
        if let Some(condition) = self.condition(now, node.condition.as_ref()) {
            let at = UNIX_EPOCH + Duration::from_secs(now.unix);
            let at = humantime::format_rfc3339_seconds(at).to_string();
            patch.insert("status".to_owned(), json!({ "conditions": [condition.json(&at)] }));
        }
        (!patch.is_empty()).then_some(Value::Object(patch))
    }

    fn condition(&self, now: Now, current: Option<&Condition>) -> Option<Condition> {
        let readiness = self.readiness.as_ref()?;
        let since = self.not_ready_since.unwrap_or(now.mono);
        Condition::wanted(current, readiness, now.mono.saturating_duration_since(since))
    }

    /// Reads what an operator wrote about the node's addresses.
    pub(super) fn judge_addresses(&mut self) {
        let OwnNode::There(node) = &self.own else { return };
        let prefix = &self.settings.prefix;
        let (_, wrong) = prefix.overwrites(&node.annotations);
        let (Addresses { v4, v6 }, also) = prefix.node_public(&node.annotations);
        let problem = wrong.into_iter().chain(also).next();
        let problem = problem.map(|why| format!("Node {}: {why}", node.name));
        if (v4, v6) != self.wished_addresses {
            self.wished_addresses = (v4, v6);
            self.pending.addresses(v4, v6);
        }
        if problem != self.annotation_problem {
            self.annotation_problem.clone_from(&problem);
            self.pending.unreadable(problem);
        }
    }
}
