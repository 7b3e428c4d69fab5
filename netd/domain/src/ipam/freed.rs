//! Addresses that were given back, in the order of their release.

use std::collections::{BTreeMap, HashMap};

/// A queue from whose middle an address can be taken.
/// Invariant: the two maps mirror each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Freed {
    by_turn: BTreeMap<u64, u128>,
    turn_of: HashMap<u128, u64>,
}

impl Freed {
    /// Puts `n` in at `turn`, which is greater than every turn so far;
    /// one that is already in moves to the new turn.
    pub(super) fn push(&mut self, n: u128, turn: u64) {
        self.remove(n);
        self.by_turn.insert(turn, n);
        self.turn_of.insert(n, turn);
    }

    /// Takes `n` out. Returns whether it was in.
    pub(super) fn remove(&mut self, n: u128) -> bool {
        match self.turn_of.remove(&n) {
            Some(turn) => self.by_turn.remove(&turn).is_some(),
            None => false,
        }
    }

    /// The address that was freed first, with its turn.
    pub(super) fn oldest(&self) -> Option<(u64, u128)> {
        self.by_turn.first_key_value().map(|(turn, n)| (*turn, *n))
    }

    /// The address of `first..=last` that was freed first.
    pub(super) fn oldest_within(&self, first: u128, last: u128) -> Option<u128> {
        self.by_turn.values().copied().find(|n| (first..=last).contains(n))
    }

    pub(super) fn contains(&self, n: u128) -> bool {
        self.turn_of.contains_key(&n)
    }

    pub(super) fn len(&self) -> usize {
        self.by_turn.len()
    }
}
