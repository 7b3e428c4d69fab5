//! How often a target is looked at after events. Who fights with netd over an object causes an
//! event for each repair, and each repair of netd's one for the other. Pure.

use std::time::{Duration, Instant};

use netd_domain::Backoff;

/// Events of one change come in bursts; the rest may come within this time.
pub(super) const COALESCE_DELAY: Duration = Duration::from_millis(10);
/// So many looks may come as fast as events do; one more for each [`REFILL`] that passes.
const BUDGET: u32 = 32;
const REFILL: Duration = Duration::from_secs(1);
/// Without an event for so long, a fight is over.
const CALM: Duration = Duration::from_secs(30);
/// Between two looks at a target that is fought over. Not longer: until the look nothing of it
/// may be in force.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));

/// The looks at one target so far.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    /// Looks that are not refilled yet, at `last`.
    spent: u32,
    /// Since when looks are refilled.
    last: Instant,
    /// The last event.
    wanted: Instant,
    /// Looks since the budget was used up; `None`: it is not.
    fight: Option<u32>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { spent: 0, last: now, wanted: now, fight: None }
    }

    /// Notes an event. After which delay the target may be looked at.
    pub(super) fn want(&mut self, now: Instant) -> Duration {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.wanted = now;
        match self.fight {
            None => COALESCE_DELAY,
            // The whole delay: the other party is no netd.
            Some(looks) => BACKOFF.delay(looks, 1.0),
        }
    }

    /// Notes a look.
    pub(super) fn look(&mut self, now: Instant) {
        let refilled = now.saturating_duration_since(self.last).as_secs() / REFILL.as_secs();
        if refilled > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(refilled).unwrap_or(u32::MAX));
            self.last = now;
        }
        self.spent = self.spent.saturating_add(1);
        self.fight = match self.fight {
            Some(looks) => Some(looks.saturating_add(1)),
            None => (self.spent > BUDGET).then_some(0),
        };
    }

    pub(super) fn is_fought_over(&self) -> bool {
        self.fight.is_some()
    }

    /// Whether there was no event for long enough.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.wanted) > CALM
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_slow_down_when_the_budget_is_used_up_and_the_fight_ends_with_the_events() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let mut looks = 0;
        let start = now;
        // An event whenever netd has repaired.
        while now.duration_since(start) < Duration::from_secs(60) {
            now += pace.want(now);
            pace.look(now);
            looks += 1;
        }
        assert!(pace.is_fought_over());
        assert!((BUDGET..BUDGET + 20).contains(&looks), "{looks} looks in a minute");
        assert!(pace.want(now) <= Duration::from_secs(5), "and it never gives up");
        assert!(!pace.is_over(now + CALM) && pace.is_over(now + CALM * 2));
        assert_eq!(pace.want(now + CALM * 2), COALESCE_DELAY);
        assert!(!pace.is_fought_over());
    }

    #[test]
    fn changes_now_and_then_are_repaired_at_once() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..500 {
            assert_eq!(pace.want(now), COALESCE_DELAY);
            pace.look(now);
            now += REFILL;
        }
    }
}
