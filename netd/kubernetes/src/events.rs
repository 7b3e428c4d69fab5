//! Which events this machine's Node gets, as `kubectl describe node` shows them: that netd started,
//! what does not work, and that it works again. Pure.
//!
//! They follow what does not work now: what comes and goes within seconds is not reported, and a
//! fault that comes and goes all the time uses up a budget.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use crate::node_event::{Kind, NodeEvent};

/// What does not work: a part of netd, and why.
pub type Problems = BTreeMap<String, String>;

/// So long a problem has to last before it is reported, and its end, too.
pub(crate) const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two events of one part whose problem has become another one.
const CHANGED_INTERVAL: Duration = Duration::from_secs(300);
/// Between two events of a problem that stays; the API server forgets an event after an hour.
const REPEAT_INTERVAL: Duration = Duration::from_secs(1800);
/// Before an event that the API refused is tried again.
const REFUSED_INTERVAL: Duration = Duration::from_secs(60);
/// So many events may follow each other at once; one more comes each [`BUDGET_INTERVAL`].
const MAX_BUDGET: u32 = 10;
const BUDGET_INTERVAL: Duration = Duration::from_secs(60);

/// What was reported of one part.
#[derive(Debug)]
struct Part {
    /// When it last began, or ended, to have a problem.
    changed: Instant,
    problem: Option<String>,
    reported: Option<(Instant, String)>,
    not_before: Option<Instant>,
    /// The event that is on its way, whose name must not change.
    pending: Option<NodeEvent>,
}

/// What was reported of all parts.
#[derive(Debug)]
pub(crate) struct EventReporter {
    parts: BTreeMap<String, Part>,
    start: Option<NodeEvent>,
    budget: u32,
    counted: Instant,
}

impl EventReporter {
    /// netd started at `wall`.
    pub(crate) fn new(now: Instant, wall: SystemTime) -> Self {
        let start = NodeEvent { kind: Kind::Started, part: "netd".to_owned(), at: wall };
        Self { parts: BTreeMap::new(), start: Some(start), budget: MAX_BUDGET, counted: now }
    }

    /// The event that has been due for longest. It stays so until it was [`Self::reported`] or
    /// [`Self::refused`].
    pub(crate) fn next(
        &mut self,
        problems: &Problems,
        now: Instant,
        wall: SystemTime,
    ) -> Option<NodeEvent> {
        self.follow(problems, now);
        while self.budget < MAX_BUDGET
            && now.saturating_duration_since(self.counted) >= BUDGET_INTERVAL
        {
            self.budget += 1;
            self.counted += BUDGET_INTERVAL;
        }
        if self.budget == 0 {
            return None;
        }
        if let Some(start) = &self.start {
            return Some(start.clone());
        }
        let due = self.parts.iter_mut().filter_map(|(name, part)| Some((part.due()?, name, part)));
        let (at, name, part) = due.min_by_key(|(at, ..)| *at)?;
        (at <= now).then(|| part.event(name, wall))
    }

    fn follow(&mut self, problems: &Problems, now: Instant) {
        for name in problems.keys() {
            if !self.parts.contains_key(name) {
                self.parts.insert(name.clone(), Part::new(now));
            }
        }
        for (name, part) in &mut self.parts {
            part.set(problems.get(name), now);
        }
        self.parts.retain(|_, part| part.problem.is_some() || part.reported.is_some());
    }

    /// It is in the API.
    pub(crate) fn reported(&mut self, event: &NodeEvent, now: Instant) {
        if self.budget == MAX_BUDGET {
            self.counted = now;
        }
        self.budget = self.budget.saturating_sub(1);
        match (&event.kind, self.parts.get_mut(&event.part)) {
            (Kind::Started, _) => self.start = None,
            (Kind::Problem(why), Some(part)) => {
                part.reported = Some((now, why.clone()));
                part.pending = None;
            }
            (Kind::Problem(_), None) => {}
            (Kind::Recovered, _) => drop(self.parts.remove(&event.part)),
        }
    }

    /// The API did not take it; others may be luckier meanwhile.
    pub(crate) fn refused(&mut self, event: &NodeEvent, now: Instant) {
        if let Some(part) = self.parts.get_mut(&event.part) {
            part.not_before = Some(now + REFUSED_INTERVAL);
        }
    }
}

impl Part {
    fn new(now: Instant) -> Self {
        Self { changed: now, problem: None, reported: None, not_before: None, pending: None }
    }

    fn set(&mut self, problem: Option<&String>, now: Instant) {
        if self.problem.is_some() != problem.is_some() {
            self.changed = now;
        }
        if self.problem.as_ref() != problem {
            self.problem = problem.cloned();
            self.pending = None;
        }
    }

    fn due(&self) -> Option<Instant> {
        let due = match (&self.reported, &self.problem) {
            (None, None) => return None,
            (None, Some(_)) | (Some(_), None) => self.changed + SETTLE_TIMEOUT,
            (Some((at, why)), Some(problem)) if why == problem => *at + REPEAT_INTERVAL,
            (Some((at, _)), Some(_)) => *at + CHANGED_INTERVAL,
        };
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    fn event(&mut self, name: &str, wall: SystemTime) -> NodeEvent {
        let kind = self.problem.clone().map_or(Kind::Recovered, Kind::Problem);
        let new = || NodeEvent { kind, part: name.to_owned(), at: wall };
        self.pending.get_or_insert_with(new).clone()
    }
}

#[cfg(test)]
mod tests;
