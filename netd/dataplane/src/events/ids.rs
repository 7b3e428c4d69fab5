//! Ids of the sandboxes' namespaces in the host's, given so that the newest is the lowest.
//!
//! This is here for speed alone. For each event in a sandbox the kernel searches the
//! namespace's id among all ids, from the lowest up (`peernet2id` in
//! net/core/net_namespace.c). By itself the kernel gives out the lowest free id, so a new
//! sandbox has the highest one and is found last, although it is being attached and causes
//! most of the events. With 1,000 sandboxes that search was a sixth of an attach. So netd
//! asks for ids that count down from a high number.

/// The first id.
const FIRST: i32 = 1 << 30;
/// The last id. Other programs may use those below.
const LAST: i32 = 1 << 29;
/// With fewer sandboxes the search takes less time than asking for an id.
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
    /// The id to ask for, for a new sandbox beside `sandboxes` others; `None`: let the kernel
    /// choose. The kernel may refuse: the namespace may have an id, or the id may be taken.
    pub(super) fn wish(&mut self, sandboxes: usize) -> Option<i32> {
        let wished = (sandboxes >= MANY && self.next >= LAST).then_some(self.next)?;
        self.next -= 1;
        Some(wished)
    }

    /// Notes that a sandbox has this id, which an earlier process may have asked for.
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
    fn ids_of_other_programs_do_not_matter() {
        let mut ids = Ids::default();
        for id in [0, 17, LAST - 1, -1, FIRST + 1] {
            ids.seen(id);
        }
        assert_eq!(ids.wish(MANY), Some(FIRST));
        ids.seen(LAST);
        assert_eq!(ids.wish(MANY), None);
    }
}
