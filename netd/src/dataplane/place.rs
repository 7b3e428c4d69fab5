//! Where a helper's thread runs: not on the processor of the thread that it helps.
//!
//! The scheduler would see to that, but a virtual machine's idle processor often looks
//! taken to it (`vcpu_is_preempted` in kernel/sched/fair.c): it wakes the helper up on the
//! caller's own, where it runs first and the two go one after the other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity},
    unistd::{Pid, gettid},
};

/// Unknown, or none of our business.
const NOWHERE: usize = usize::MAX;

/// A helper's thread.
#[derive(Debug)]
pub struct Place {
    thread: Pid,
    /// Where it may run by the administrator's will.
    allowed: Option<CpuSet>,
    /// Where it ran last.
    last: AtomicUsize,
}

impl Place {
    /// The calling thread.
    pub fn here() -> Self {
        // With one processor, or more than the set has room for, there is nothing to choose.
        let allowed = sched_getaffinity(Pid::from_raw(0)).ok();
        let allowed = allowed.filter(|set| processors(set).nth(1).is_some());
        Self { thread: gettid(), allowed, last: AtomicUsize::new(NOWHERE) }
    }

    /// The thread has done something here.
    pub fn note(&self) {
        self.last.store(sched_getcpu().unwrap_or(NOWHERE), Relaxed);
    }

    /// The calling thread is about to wake it up, and goes on itself. A hint: nothing is
    /// lost if it is not taken.
    pub fn keep_off(&self) {
        let Some(allowed) = &self.allowed else { return };
        match sched_getcpu() {
            Ok(here) if here == self.last.load(Relaxed) => {
                // What is left may not be there any more: then it stays where it was.
                let _ = sched_setaffinity(self.thread, &without(allowed, here));
            }
            _ => {}
        }
    }
}

fn processors(set: &CpuSet) -> impl Iterator<Item = usize> {
    (0..CpuSet::count()).filter(|i| set.is_set(*i) == Ok(true))
}

fn without(set: &CpuSet, processor: usize) -> CpuSet {
    let mut rest = *set;
    // Beyond the set's room it is not in it.
    let _ = rest.unset(processor);
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_the_callers_processor_and_keeps_to_what_is_allowed() {
        let place = Place::here();
        let Some(allowed) = place.allowed else { return };
        let mine = processors(&allowed).next().unwrap();
        let mut only = CpuSet::new();
        only.set(mine).unwrap();
        sched_setaffinity(gettid(), &only).unwrap();
        place.note();
        place.keep_off();
        let now = sched_getaffinity(gettid()).unwrap();
        let rest = processors(&allowed).filter(|i| *i != mine);
        assert_eq!(processors(&now).collect::<Vec<_>>(), rest.collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_that_ran_elsewhere_is_left_alone() {
        let place = Place::here();
        let before = sched_getaffinity(gettid()).unwrap();
        place.keep_off();
        assert_eq!(sched_getaffinity(gettid()).unwrap(), before);
    }
}
