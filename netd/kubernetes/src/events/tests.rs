//! When events are due.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn problems(all: &[(&str, &str)]) -> Problems {
    all.iter().map(|(part, why)| ((*part).to_owned(), (*why).to_owned())).collect()
}

/// A reporter whose start is reported, and all that was reported.
struct World {
    reporter: EventReporter,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self { reporter: EventReporter::new(now, SystemTime::UNIX_EPOCH), now };
        assert_eq!(world.reported(&problems(&[])), ["netd: started"]);
        world.now += 2 * MINUTE;
        world
    }

    fn next(&mut self, problems: &Problems) -> Option<NodeEvent> {
        self.reporter.next(problems, self.now, SystemTime::UNIX_EPOCH)
    }

    /// What is reported now, all of it.
    fn reported(&mut self, problems: &Problems) -> Vec<String> {
        let mut all = vec![];
        while let Some(event) = self.next(problems) {
            let said = match &event.kind {
                Kind::Started => "started",
                Kind::Problem(why) => why,
                Kind::Recovered => "ok",
            };
            all.push(format!("{}: {said}", event.part));
            self.reporter.reported(&event, self.now);
        }
        all
    }
}

#[test]
fn what_lasts_is_reported_once_and_its_end_too() {
    let mut world = World::new();
    let (full, none) = (problems(&[("pool", "full")]), problems(&[]));
    assert!(world.reported(&full).is_empty());
    world.now += SECOND;
    assert!(world.reported(&none).is_empty(), "it came and went");
    world.now += SECOND;
    assert!(world.reported(&full).is_empty());
    world.now += SETTLE_TIMEOUT;
    assert_eq!(world.reported(&full), ["pool: full"]);
    world.now += MINUTE;
    assert!(world.reported(&full).is_empty());
    world.now += REPEAT_INTERVAL;
    assert_eq!(world.reported(&full), ["pool: full"]);
    assert!(world.reported(&none).is_empty(), "its end has to last, too");
    world.now += SECOND;
    assert!(world.reported(&full).is_empty(), "it never ended");
    assert!(world.reported(&none).is_empty());
    world.now += SETTLE_TIMEOUT;
    assert_eq!(world.reported(&none), ["pool: ok"]);
    world.now += REPEAT_INTERVAL;
    assert!(world.reported(&none).is_empty());
}

#[test]
fn other_words_wait() {
    let mut world = World::new();
    let (first, other) = (problems(&[("overlay", "n2")]), problems(&[("overlay", "n3")]));
    world.next(&first);
    world.now += SETTLE_TIMEOUT;
    assert_eq!(world.reported(&first), ["overlay: n2"]);
    world.now += MINUTE;
    assert!(world.reported(&other).is_empty());
    world.now += CHANGED_INTERVAL;
    assert_eq!(world.reported(&other), ["overlay: n3"]);
}

#[test]
fn an_event_that_was_not_taken_keeps_its_name_and_holds_up_no_other() {
    let mut world = World::new();
    let both = problems(&[("a", "no"), ("b", "no")]);
    world.next(&both);
    world.now += SETTLE_TIMEOUT;
    let first = world.next(&both).expect("an event");
    let later = SystemTime::UNIX_EPOCH + MINUTE;
    assert_eq!(
        world.reporter.next(&both, world.now, later).as_ref(),
        Some(&first),
        "it has another name"
    );
    world.reporter.refused(&first, world.now);
    assert_eq!(world.reported(&both), ["b: no"]);
    world.now += REFUSED_INTERVAL;
    assert_eq!(world.reported(&both), ["a: no"]);
}

#[test]
fn a_storm_is_cut_off_and_nobody_waits_for_ever() {
    let mut world = World::new();
    let many: Problems = (0..40).map(|n| (format!("part/{n:02}"), "no".to_owned())).collect();
    world.next(&many);
    world.now += SETTLE_TIMEOUT;
    assert_eq!(world.reported(&many).len(), 10);
    world.now += 3 * MINUTE;
    let later = world.reported(&many);
    assert_eq!(later, ["part/10: no", "part/11: no", "part/12: no"]);
}
