//! Ids of the sandboxes' namespaces in the host's: the newest sandbox has the lowest.
//!
//! With each event of a sandbox the kernel looks for its id among all of them, from the
//! lowest on (`peernet2id` in net/core/net_namespace.c). Itself it gives the lowest free
//! one, so that the sandbox which is being attached, whose events are most of all, comes
//! last: with 1,000 of them a sixth of an attach. So ours count down.

/// Where they begin.
const FIRST: i32 = 1 << 30;
/// Where they end: those below are somebody else's.
const LAST: i32 = 1 << 29;
/// Among fewer sandboxes the search is shorter than the request.
const MANY: usize = 64;

/// The id to ask for next.
#[derive(Debug)]
pub(super) struct Ids {
    next: i32,
}

impl Default for Ids {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Ids {
    /// What the namespace of a new sandbox should be called with `sandboxes` there already;
    /// `None`: let the kernel choose. Only a wish: it may have an id, or the id be taken.
    pub(super) fn wish(&mut self, sandboxes: usize) -> Option<i32> {
        let wished = (sandboxes >= MANY && self.next >= LAST).then_some(self.next)?;
        self.next -= 1;
        Some(wished)
    }

    /// A sandbox has this id, maybe since before this process.
    pub(super) fn seen(&mut self, id: i32) {
        if (LAST..=self.next).contains(&id) {
            self.next = id - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_count_down() {
        let mut ids = Ids::default();
        assert_eq!(ids.wish(MANY - 1), None);
        assert_eq!(ids.wish(MANY), Some(FIRST));
        ids.seen(FIRST);
        assert_eq!(ids.wish(MANY), Some(FIRST - 1));
        // Refused: not asked for again.
        assert_eq!(ids.wish(MANY), Some(FIRST - 2));
    }

    #[test]
    fn after_a_restart_they_go_on_below_the_lowest() {
        let mut ids = Ids::default();
        ids.seen(FIRST - 7);
        ids.seen(FIRST - 3);
        assert_eq!(ids.wish(MANY), Some(FIRST - 8));
    }

    #[test]
    fn somebody_elses_do_not_matter() {
        let mut ids = Ids::default();
        for id in [0, 17, LAST - 1, -1, FIRST + 1] {
            ids.seen(id);
        }
        assert_eq!(ids.wish(MANY), Some(FIRST));
        ids.seen(LAST);
        assert_eq!(ids.wish(MANY), None);
    }
}
