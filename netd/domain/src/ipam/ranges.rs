//! A set of numbers kept as ranges.

use std::collections::BTreeMap;

/// A set of numbers. Invariant: ranges are inclusive, disjoint, and never touch
/// each other, so their count is the least possible.
#[derive(Debug, Clone, Default)]
pub(super) struct Ranges {
    /// First of a range to its last.
    by_first: BTreeMap<u128, u128>,
    /// Numbers in the set. A pool has at most 2^112, so this can't overflow.
    count: u128,
}

impl Ranges {
    /// `first..=last` without `holes`, which may overlap and lie anywhere.
    pub(super) fn without(first: u128, last: u128, mut holes: Vec<(u128, u128)>) -> Self {
        let mut set = Self::default();
        holes.sort_unstable();
        let mut next = Some(first);
        for (a, b) in holes {
            let Some(from) = next else { break };
            if b < from {
                continue;
            }
            if a > last {
                break;
            }
            if a > from {
                set.push(from, a - 1);
            }
            next = b.checked_add(1);
        }
        if let Some(from) = next
            && from <= last
        {
            set.push(from, last);
        }
        set
    }

    fn push(&mut self, first: u128, last: u128) {
        self.by_first.insert(first, last);
        self.count += last - first + 1;
    }

    pub(super) fn count(&self) -> u128 {
        self.count
    }

    /// How many ranges the numbers make up: memory and cost depend on it.
    #[cfg(test)]
    pub(crate) fn pieces(&self) -> usize {
        self.by_first.len()
    }

    /// The smallest number of the set that is at least `n`.
    pub(super) fn at_or_after(&self, n: u128) -> Option<u128> {
        if self.contains(n) {
            return Some(n);
        }
        self.by_first.range(n..).next().map(|(first, _)| *first)
    }

    pub(super) fn contains(&self, n: u128) -> bool {
        self.by_first.range(..=n).next_back().is_some_and(|(_, last)| *last >= n)
    }

    /// Takes `n` out. Returns whether it was in.
    pub(super) fn remove(&mut self, n: u128) -> bool {
        let Some((&first, &last)) = self.by_first.range(..=n).next_back() else { return false };
        if last < n {
            return false;
        }
        if first < n {
            self.by_first.insert(first, n - 1);
        } else {
            self.by_first.remove(&first);
        }
        if n < last {
            self.by_first.insert(n + 1, last);
        }
        self.count -= 1;
        true
    }

    /// Puts `n` in. Returns whether it was out.
    pub(super) fn insert(&mut self, n: u128) -> bool {
        let below = self.by_first.range(..=n).next_back().map(|(a, b)| (*a, *b));
        if below.is_some_and(|(_, last)| last >= n) {
            return false;
        }
        let first = match below {
            Some((first, last)) if last + 1 == n => first,
            _ => n,
        };
        let last = n.checked_add(1).and_then(|after| self.by_first.remove(&after)).unwrap_or(n);
        self.by_first.insert(first, last);
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    proptest! {
        #[test]
        fn ranges_behave_like_a_set_and_never_touch(
            holes in proptest::collection::vec((0u128..70, 0u128..6), 0..6),
            steps in proptest::collection::vec((any::<bool>(), 0u128..70), 0..80),
        ) {
            let holes: Vec<_> = holes.into_iter().map(|(a, n)| (a, a + n)).collect();
            let mut model: BTreeSet<u128> =
                (5..=60).filter(|n| !holes.iter().any(|(a, b)| (a..=b).contains(&n))).collect();
            let mut set = Ranges::without(5, 60, holes);
            for (put, n) in steps {
                if put {
                    prop_assert_eq!(set.insert(n), model.insert(n));
                } else {
                    prop_assert_eq!(set.remove(n), model.remove(&n));
                }
                prop_assert_eq!(set.count(), model.len() as u128);
                prop_assert_eq!(set.at_or_after(n), model.range(n..).next().copied());
                prop_assert_eq!(set.contains(n), model.contains(&n));
                let ends: Vec<_> = set.by_first.iter().collect();
                prop_assert!(ends.windows(2).all(|w| *w[0].1 + 1 < *w[1].0));
            }
        }
    }

    #[test]
    fn ends_of_the_number_line_do_not_overflow() {
        let mut set = Ranges::without(u128::MAX - 2, u128::MAX, vec![(u128::MAX, u128::MAX)]);
        assert_eq!(set.count(), 2);
        assert!(set.insert(u128::MAX));
        assert_eq!((set.count(), set.pieces()), (3, 1));
        assert!(set.remove(u128::MAX) && set.remove(u128::MAX - 2));
        assert_eq!(set.at_or_after(0), Some(u128::MAX - 1));
    }
}
