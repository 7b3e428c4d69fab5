//! The cluster's configuration that is in force: the last one that could be read. Pure.

use std::sync::Arc;

use super::pending_updates::PendingUpdates;
use crate::{ClusterConfig, flannel};

/// See the module.
#[derive(Debug, Default)]
pub struct ConfigInForce {
    config: Option<Arc<ClusterConfig>>,
    text: Option<String>,
    problem: Option<String>,
}

impl ConfigInForce {
    /// `None`: none could be read ever.
    pub fn now(&self) -> Option<&ClusterConfig> {
        self.config.as_deref()
    }

    /// As [`Self::now`], to be kept.
    pub fn shared(&self) -> Option<Arc<ClusterConfig>> {
        self.config.clone()
    }

    /// The text that it was read from.
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// What is wrong with what was written since.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes what is written at `place` now, or why there is nothing, and tells of it. Whether
    /// another configuration is in force, or the same one without a problem.
    pub fn take(
        &mut self,
        place: &str,
        bytes: Result<&[u8], String>,
        pending: &mut PendingUpdates,
    ) -> bool {
        const EXAMPLE: &str = "{\"Network\": \"10.5.0.0/16\", \"Backend\": {\"Type\": \"vxlan\"}}";
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(why) => return self.refuse(format!("{why}, e.g. {EXAMPLE}"), pending),
        };
        if self.problem.is_none() && self.text.as_ref().is_some_and(|t| t.as_bytes() == bytes) {
            return false;
        }
        let read = match flannel::config::parse(bytes) {
            Ok(read) => read,
            Err(problem) => return self.refuse(format!("{place}: {problem}"), pending),
        };
        read.warnings.iter().for_each(|warning| tracing::warn!("{place}: {warning}"));
        self.text = String::from_utf8(bytes.to_vec()).ok();
        let healed = self.problem.take().is_some();
        if self.config.as_deref() == Some(&read.config) && !healed {
            return false;
        }
        let config = Arc::new(read.config);
        self.config = Some(Arc::clone(&config));
        pending.config(config);
        true
    }

    /// Reports a bad configuration; the last good one stays in force.
    fn refuse(&mut self, problem: String, pending: &mut PendingUpdates) -> bool {
        if self.problem.as_ref() != Some(&problem) {
            self.problem = Some(problem.clone());
            pending.config_problem(problem);
        }
        false
    }
}
