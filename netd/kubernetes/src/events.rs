//! Events of this machine's Node, which `kubectl describe node` shows: what does not work, and
//! that it works again. Pure.
//!
//! They follow the problems that there are; what came and went within seconds is not told, and a
//! fault that comes and goes all the time uses up a budget.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

/// What does not work, by the part of netd whose it is.
pub type Problems = BTreeMap<String, String>;

/// So long a problem has to last before it is told.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);
/// Between two events of one part, if its problem has become another one.
const OTHER_WORDS: Duration = Duration::from_secs(300);
/// A problem that stays is told again; the API server forgets an event after an hour.
const AGAIN: Duration = Duration::from_secs(1800);
/// So many events may follow each other at once, and one more comes each minute.
const BURST: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// The API server takes no more than 1,024 bytes.
const MAX_MESSAGE: usize = 250;

/// Where events of Nodes are.
pub(crate) const NAMESPACE: &str = "default";

/// What is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEvent {
    part: String,
    /// `None`: it works again.
    problem: Option<String>,
}

#[derive(Debug)]
struct Part {
    since: Instant,
    told: Option<(Instant, String)>,
}

/// What was told of which part.
#[derive(Debug)]
pub(crate) struct Teller {
    parts: BTreeMap<String, Part>,
    left: u32,
    counted: Instant,
}

impl Teller {
    pub(crate) fn new(now: Instant) -> Self {
        Self { parts: BTreeMap::new(), left: BURST, counted: now }
    }

    /// What is to be told next, if anything. It stays so until it was [`Self::told`].
    pub(crate) fn next(&mut self, problems: &Problems, now: Instant) -> Option<NodeEvent> {
        for part in problems
            .keys()
            .filter(|part| !self.parts.contains_key(*part))
            .cloned()
            .collect::<Vec<_>>()
        {
            self.parts.insert(part, Part { since: now, told: None });
        }
        self.parts.retain(|name, part| part.told.is_some() || problems.contains_key(name));
        while self.left < BURST && now.saturating_duration_since(self.counted) >= MINUTE {
            self.left += 1;
            self.counted += MINUTE;
        }
        if self.left == 0 {
            return None;
        }
        let mut due =
            self.parts.iter().filter(|(name, part)| part.is_due(problems.get(*name), now));
        let (name, _) = due.next()?;
        Some(NodeEvent { part: name.clone(), problem: problems.get(name).cloned() })
    }

    /// It is in the API.
    pub(crate) fn told(&mut self, event: NodeEvent, now: Instant) {
        if self.left == BURST {
            self.counted = now;
        }
        self.left = self.left.saturating_sub(1);
        match (event.problem, self.parts.get_mut(&event.part)) {
            (Some(problem), Some(part)) => part.told = Some((now, problem)),
            (Some(_), None) => {}
            (None, _) => drop(self.parts.remove(&event.part)),
        }
    }
}

impl Part {
    fn is_due(&self, problem: Option<&String>, now: Instant) -> bool {
        let since = |then: Instant| now.saturating_duration_since(then);
        match (&self.told, problem) {
            (None, None) => false,
            (None, Some(_)) => since(self.since) >= SETTLED,
            (Some(_), None) => true,
            (Some((at, text)), Some(problem)) => {
                since(*at) >= if text == problem { AGAIN } else { OTHER_WORDS }
            }
        }
    }
}

impl NodeEvent {
    /// As the API takes it.
    pub(crate) fn object(&self, node: &str, now: SystemTime) -> Value {
        let (kind, reason, message) = match &self.problem {
            Some(problem) => ("Warning", "NetdProblem", format!("{}: {problem}", self.part)),
            None => ("Normal", "NetdRecovered", format!("{}: works again", self.part)),
        };
        let message: String = message.replace('\n', "; ").chars().take(MAX_MESSAGE).collect();
        let time = humantime::format_rfc3339_seconds(now).to_string();
        let nanoseconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": { "name": format!("{node}.{nanoseconds:x}"), "namespace": NAMESPACE },
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
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn problems(all: &[(&str, &str)]) -> Problems {
        all.iter().map(|(part, why)| ((*part).to_owned(), (*why).to_owned())).collect()
    }

    /// What is told at `now`, all of it, as "part: problem".
    fn told(teller: &mut Teller, problems: &Problems, now: Instant) -> Vec<String> {
        let mut all = vec![];
        while let Some(event) = teller.next(problems, now) {
            all.push(format!("{}: {}", event.part, event.problem.as_deref().unwrap_or("ok")));
            teller.told(event, now);
        }
        all
    }

    #[test]
    fn what_lasts_is_told_once_and_its_end_too() {
        let start = Instant::now();
        let mut teller = Teller::new(start);
        let full = problems(&[("pool", "full")]);
        assert!(told(&mut teller, &full, start).is_empty());
        assert!(told(&mut teller, &problems(&[]), start + SECOND).is_empty(), "it came and went");
        let from = start + 2 * SECOND;
        assert!(told(&mut teller, &full, from).is_empty());
        assert_eq!(told(&mut teller, &full, from + SETTLED), ["pool: full"]);
        assert!(told(&mut teller, &full, from + SETTLED + MINUTE).is_empty());
        assert_eq!(told(&mut teller, &full, from + SETTLED + AGAIN), ["pool: full"]);
        let end = from + SETTLED + AGAIN + SECOND;
        assert_eq!(told(&mut teller, &problems(&[]), end), ["pool: ok"]);
        assert!(told(&mut teller, &problems(&[]), end + AGAIN).is_empty());
    }

    #[test]
    fn an_event_that_was_not_taken_is_told_later_and_other_words_wait() {
        let start = Instant::now();
        let mut teller = Teller::new(start);
        let first = problems(&[("overlay", "n2")]);
        teller.next(&first, start);
        let now = start + SETTLED;
        assert!(teller.next(&first, now).is_some());
        assert!(teller.next(&first, now + SECOND).is_some(), "it was not told");
        assert_eq!(told(&mut teller, &first, now), ["overlay: n2"]);
        let other = problems(&[("overlay", "n3")]);
        assert!(told(&mut teller, &other, now + MINUTE).is_empty());
        assert_eq!(told(&mut teller, &other, now + OTHER_WORDS), ["overlay: n3"]);
    }

    #[test]
    fn a_storm_is_cut_off() {
        let start = Instant::now();
        let mut teller = Teller::new(start);
        let many: Problems = (0..40).map(|n| (format!("part/{n:02}"), "no".to_owned())).collect();
        teller.next(&many, start);
        assert_eq!(told(&mut teller, &many, start + SETTLED).len(), 10);
        assert_eq!(told(&mut teller, &many, start + SETTLED + 3 * MINUTE).len(), 3);
    }

    #[test]
    fn an_event_is_one_of_the_node_and_short() {
        let event = NodeEvent { part: "overlay".into(), problem: Some("é\n".repeat(900)) };
        let object = event.object("n1", SystemTime::UNIX_EPOCH + SECOND);
        assert_eq!(object["involvedObject"]["uid"], "n1");
        assert_eq!(object["type"], "Warning");
        assert_eq!(object["firstTimestamp"], "1970-01-01T00:00:01Z");
        let message = object["message"].as_str().unwrap();
        assert!(message.starts_with("overlay: é; é") && message.len() <= 1024, "{message}");
    }
}
