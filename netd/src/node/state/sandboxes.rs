//! Which sandboxes the runtimes list.

use std::collections::HashSet;

use super::node_state::NodeState;
use netd_domain::{Endpoint, Phase, SandboxId, ids::DEFAULT_IFNAME};

impl NodeState {
    /// Sets the sandboxes that `source` lists; false if there are `most` other sources.
    pub(crate) fn set_source(
        &self,
        source: &str,
        sandboxes: HashSet<SandboxId>,
        most: usize,
    ) -> bool {
        let sources = &mut self.inner.lock().sources;
        let room = sources.contains_key(source) || sources.len() < most;
        if room {
            sources.insert(source.to_owned(), sandboxes);
        }
        room
    }

    /// Whether any source lists the sandbox.
    pub(crate) fn is_known(&self, sandbox: &SandboxId) -> bool {
        self.inner.lock().sources.values().any(|set| set.contains(sandbox))
    }

    /// Removes the sandbox from every source's list.
    pub(crate) fn forget_sandbox(&self, sandbox: &SandboxId) {
        for set in self.inner.lock().sources.values_mut() {
            set.remove(sandbox);
        }
    }

    /// Whether the sandbox's primary endpoint was detached and others are left.
    pub(crate) fn primary_is_gone(&self, sandbox: &SandboxId) -> bool {
        let rest = self.of_sandbox(sandbox);
        if rest.iter().any(|e| e.phase == Phase::Attached && is_primary(e)) {
            return false;
        }
        rest.iter().any(|e| e.phase == Phase::Detaching)
            || self.inner.lock().tombstones.keys().any(|key| key.sandbox == *sandbox)
    }
}

/// Whether a sandbox ends with this endpoint: it is the interface that runtimes ask for, or
/// has the default route.
pub(crate) fn is_primary(endpoint: &Endpoint) -> bool {
    let leads_out = endpoint.wiring.routes.iter().any(|r| r.destination.prefix_len() == 0);
    endpoint.key.ifname.as_str() == DEFAULT_IFNAME || leads_out
}
