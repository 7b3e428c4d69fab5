//! A value that many threads read without a lock, and that changes a little at a time.
//!
//! There are two of it: one is read, the other one is brought up to date by a change and then
//! takes its place. So a change costs what it touches, twice, whatever the size of the value.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

/// How long a change waits for readers of the one before: each is done after its batch.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// Both; `C` is a change.
#[derive(Debug)]
pub(super) struct Replicas<T, C> {
    current: ArcSwap<T>,
    spare: Mutex<Spare<T, C>>,
}

#[derive(Debug)]
struct Spare<T, C> {
    value: Arc<T>,
    /// The change that it lacks.
    missing: Option<C>,
}

impl<T: Default, C> Default for Replicas<T, C> {
    fn default() -> Self {
        let spare = Spare { value: Arc::default(), missing: None };
        Self { current: ArcSwap::default(), spare: Mutex::new(spare) }
    }
}

impl<T: Clone + Default, C> Replicas<T, C> {
    /// For a batch.
    pub(super) fn load(&self) -> Guard<Arc<T>> {
        self.current.load()
    }

    /// Makes a change by `apply`, which does the same to both.
    pub(super) fn change(&self, change: C, apply: impl Fn(&mut T, &C)) {
        let mut spare = self.spare.lock();
        let mut value = std::mem::take(&mut spare.value);
        let mut missing = spare.missing.take();
        let end = Instant::now() + PATIENCE;
        while Arc::get_mut(&mut value).is_none() {
            if Instant::now() >= end {
                // A reader hangs: it keeps its own.
                value = Arc::new(T::clone(&self.current.load()));
                missing = None;
                break;
            }
            thread::park_timeout(PAUSE);
        }
        if let Some(value) = Arc::get_mut(&mut value) {
            if let Some(missing) = &missing {
                apply(value, missing);
            }
            apply(value, &change);
        }
        *spare = Spare { value: self.current.swap(value), missing: Some(change) };
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use super::*;

    type Numbers = Replicas<BTreeSet<u32>, u32>;

    fn insert(set: &mut BTreeSet<u32>, number: &u32) {
        set.insert(*number);
    }

    #[test]
    fn a_change_is_made_twice_and_nothing_else_is_touched() {
        let (numbers, applied) = (Numbers::default(), AtomicUsize::new(0));
        for number in 0..10_000 {
            numbers.change(number, |set, number| {
                applied.fetch_add(1, Ordering::Relaxed);
                insert(set, number);
            });
            assert_eq!(numbers.load().len(), number as usize + 1);
        }
        assert_eq!(applied.load(Ordering::Relaxed), 2 * 10_000 - 1);
    }

    #[test]
    fn readers_see_whole_changes_and_one_that_hangs_keeps_its_own() {
        let (numbers, done) = (Numbers::default(), AtomicBool::new(false));
        numbers.change(0, insert);
        let kept = numbers.load();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let seen = numbers.load();
                    let last = seen.last().copied();
                    assert_eq!(last, Some(seen.len() as u32 - 1), "changes are missing");
                }
            });
            let start = Instant::now();
            (1..1000).for_each(|number| numbers.change(number, insert));
            assert!(start.elapsed() < Duration::from_secs(20));
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!((kept.len(), numbers.load().len()), (1, 1000));
    }
}
