//! Which parts of netd work, and why the others do not.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::clock::now_unix;

/// One part's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentState {
    /// "store", "firewall", "network/NAME", "endpoint/KEY", ...
    pub name: String,
    /// `None`: it works.
    pub problem: Option<String>,
    /// Whether the node is not ready because of it.
    pub blocks: bool,
    /// Since when it is so, seconds since the Unix epoch.
    pub since: i64,
}

/// The state of every part; ready when all are.
#[derive(Debug)]
pub struct Health {
    parts: Mutex<BTreeMap<String, ComponentState>>,
    ready: watch::Sender<bool>,
    /// When all threads were seen to work last.
    alive: Mutex<Instant>,
    /// Why netd has to be started again.
    broken: watch::Sender<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            parts: Mutex::default(),
            ready: watch::Sender::new(false),
            alive: Mutex::new(Instant::now()),
            broken: watch::Sender::new(None),
        }
    }
}

impl Health {
    /// Notes that the part works.
    pub fn good(&self, name: &str) {
        self.set(name, None, true);
    }

    /// Notes that the part does not work: the node is not ready.
    pub fn bad(&self, name: &str, problem: impl std::fmt::Display) {
        self.set(name, Some(problem.to_string()), true);
    }

    /// Notes a problem that keeps no other part from working: it is shown, but the node
    /// stays ready.
    pub(crate) fn advise(&self, name: &str, problem: impl std::fmt::Display) {
        self.set(name, Some(problem.to_string()), false);
    }

    /// Removes a part that no longer exists.
    pub fn forget(&self, name: &str) {
        let mut parts = self.parts.lock();
        parts.remove(name);
        self.publish(&parts);
    }

    fn set(&self, name: &str, problem: Option<String>, blocks: bool) {
        let mut parts = self.parts.lock();
        let changed = match parts.get(name) {
            Some(old) => old.problem.is_some() != problem.is_some(),
            None => true,
        };
        if changed {
            match &problem {
                Some(why) if blocks => {
                    tracing::warn!(component = name, %why, "not ready: {name}: {why}");
                }
                Some(why) => tracing::warn!(component = name, %why, "problem: {name}: {why}"),
                None => tracing::info!(component = name, "ready: {name}"),
            }
        }
        let since = parts.get(name).filter(|_| !changed).map_or_else(now_unix, |old| old.since);
        let name = name.to_owned();
        parts.insert(name.clone(), ComponentState { name, problem, blocks, since });
        self.publish(&parts);
    }

    fn publish(&self, parts: &BTreeMap<String, ComponentState>) {
        let ready = !parts.is_empty() && parts.values().all(|p| p.problem.is_none() || !p.blocks);
        self.ready.send_if_modified(|old| std::mem::replace(old, ready) != ready);
    }

    /// All threads work.
    pub(super) fn beat(&self) {
        *self.alive.lock() = Instant::now();
    }

    /// For how long it is not known that all threads work. A few seconds are usual.
    pub fn silence(&self) -> Duration {
        self.alive.lock().elapsed()
    }

    /// Notes that a part does not work and can't until netd is started again.
    pub(super) fn break_down(&self, name: &str, problem: &str) {
        self.bad(name, problem);
        self.broken.send_replace(Some(format!("{name}: {problem}")));
    }

    /// Waits until a part has broken down, and says which and why.
    pub async fn broken(&self) -> String {
        let mut broken = self.broken.subscribe();
        let why = broken.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // The sender lives as long as `self`.
        why.unwrap_or_default()
    }

    /// Every part.
    pub fn parts(&self) -> Vec<ComponentState> {
        self.parts.lock().values().cloned().collect()
    }

    /// The problem of one part.
    pub fn problem(&self, name: &str) -> Option<String> {
        self.parts.lock().get(name).and_then(|p| p.problem.clone())
    }

    /// Whether every part works that the node needs to be ready.
    ///
    /// # Errors
    /// Every blocking problem, a line each.
    pub fn ready(&self) -> Result<(), String> {
        let parts = self.parts.lock();
        let bad: Vec<String> = parts
            .values()
            .filter(|p| p.blocks)
            .filter_map(|p| Some(format!("{}: {}", p.name, p.problem.as_ref()?)))
            .collect();
        if bad.is_empty() && !parts.is_empty() { Ok(()) } else { Err(bad.join("\n")) }
    }

    /// Follows readiness.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }
}
