//! Where a helper's thread wakes up: not on the processor of the thread that it helps.
//!
//! The scheduler would see to that, but a virtual machine's idle processor often looks
//! taken to it (`vcpu_is_preempted` in kernel/sched/fair.c): it wakes the helper up on the
//! caller's own, where it runs first and the two go one after the other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu},
    unistd::{Pid, gettid},
};
use parking_lot::Mutex;

/// Not known yet.
const NOWHERE: usize = usize::MAX;

/// A helper's thread.
#[derive(Debug)]
pub struct Place {
    thread: Pid,
    /// Where it ran last.
    last: AtomicUsize,
    /// Where it may run, while it is kept off one of them until it wakes up.
    allowed: Mutex<Option<CpuSet>>,
}

impl Place {
    /// The calling thread.
    pub fn here() -> Self {
        let last = AtomicUsize::new(NOWHERE);
        Self { thread: gettid(), last, allowed: Mutex::new(None) }
    }

    /// The calling thread is about to wake it up, and goes on itself. A hint: where it is
    /// refused (one processor, or more than a [`CpuSet`] has room for) nothing changes.
    pub fn keep_off(&self) {
        let Ok(here) = sched_getcpu() else { return };
        let mut allowed = self.allowed.lock();
        if here != self.last.load(Relaxed) || allowed.is_some() {
            return;
        }
        let Ok(all) = sched_getaffinity(self.thread) else { return };
        if set(self.thread, &without(&all, here)) {
            *allowed = Some(all);
        }
    }

    /// The thread has woken up: from here on it runs where it may.
    pub fn awake(&self) {
        if let Some(all) = self.allowed.lock().take() {
            set(self.thread, &all);
        }
    }

    /// The thread has done something here.
    pub fn note(&self) {
        self.last.store(sched_getcpu().unwrap_or(NOWHERE), Relaxed);
    }
}

#[allow(clippy::disallowed_methods)] // this is its place
fn set(thread: Pid, processors: &CpuSet) -> bool {
    nix::sched::sched_setaffinity(thread, processors).is_ok()
}

fn without(all: &CpuSet, processor: usize) -> CpuSet {
    let mut rest = *all;
    // Beyond the set's room it is not in it.
    let _ = rest.unset(processor);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(set: &CpuSet) -> Vec<usize> {
        (0..CpuSet::count()).filter(|i| set.is_set(*i) == Ok(true)).collect()
    }

    #[test]
    fn the_rest_is_all_but_one() {
        let mut all = CpuSet::new();
        for i in [1, 5, 70] {
            all.set(i).unwrap();
        }
        assert_eq!(processors(&without(&all, 5)), [1, 70]);
        assert_eq!(processors(&without(&all, 6)), [1, 5, 70]);
        assert_eq!(processors(&without(&all, usize::MAX)), [1, 5, 70]);
    }

    /// On a thread of its own: its processors change.
    fn apart(f: impl FnOnce(Place, CpuSet) + Send + 'static) {
        let body = || f(Place::here(), sched_getaffinity(gettid()).unwrap());
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn it_is_kept_off_the_callers_processor_until_it_is_awake() {
        apart(|place, all| {
            let here = processors(&all)[0];
            let mut only = CpuSet::new();
            only.set(here).unwrap();
            // So that it stays on it between the two calls.
            assert!(set(gettid(), &only));
            place.note();
            place.keep_off();
            // Nowhere else to go: refused, and it stays as it was.
            assert_eq!(sched_getaffinity(gettid()).unwrap(), only);
            assert!(place.allowed.lock().is_none());
            assert!(set(gettid(), &all));
            place.last.store(sched_getcpu().unwrap(), Relaxed);
            place.keep_off();
            place.awake();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
        });
    }

    #[test]
    fn a_thread_that_ran_elsewhere_is_left_alone() {
        apart(|place, all| {
            place.last.store(CpuSet::count() + 1, Relaxed);
            place.keep_off();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
            assert!(place.allowed.lock().is_none());
        });
    }
}
