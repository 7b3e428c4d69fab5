//! Where a helper's thread runs: not on the processor of the thread that it helps.
//!
//! The scheduler would see to that, but a virtual machine's idle processor often looks
//! taken to it (`vcpu_is_preempted` in kernel/sched/fair.c): it wakes the helper up on the
//! caller's own, where it runs first and the two go one after the other. Once it has been
//! moved it stays away, until the caller has nothing to do but to wait for it.

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
pub(crate) struct Place {
    thread: Pid,
    /// Where it ran last.
    last: AtomicUsize,
    kept: Mutex<Option<Kept>>,
}

/// It is kept off a processor.
#[derive(Debug)]
struct Kept {
    /// Where it may run by the administrator's will.
    all: CpuSet,
    /// Where it runs for now.
    rest: CpuSet,
}

impl Place {
    /// The calling thread.
    pub(crate) fn here() -> Self {
        Self { thread: gettid(), last: AtomicUsize::new(NOWHERE), kept: Mutex::new(None) }
    }

    /// The calling thread is about to wake it up, and goes on itself. A hint: where it is
    /// refused (one processor, or more than a [`CpuSet`] has room for) nothing changes.
    pub(crate) fn keep_off(&self) {
        let Ok(here) = sched_getcpu() else { return };
        if here != self.last.load(Relaxed) {
            return;
        }
        let mut kept = self.kept.lock();
        let Ok(now) = sched_getaffinity(self.thread) else { return };
        let all = match &*kept {
            Some(kept) if kept.rest == now => kept.all,
            // Nobody, or somebody else has said since where it may run.
            _ => now,
        };
        let rest = without(&all, here);
        if set(self.thread, &rest) {
            *kept = Some(Kept { all, rest });
        }
    }

    /// It runs wherever it may again.
    pub(crate) fn let_go(&self) {
        let kept = self.kept.lock().take();
        let Some(kept) = kept else { return };
        if sched_getaffinity(self.thread) == Ok(kept.rest) {
            set(self.thread, &kept.all);
        }
    }

    /// The thread has done something here.
    pub(crate) fn note(&self) {
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
    fn it_is_kept_off_the_callers_processor_until_it_is_let_go() {
        apart(|place, all| {
            // Where else it could go only the machine knows.
            place.note();
            place.keep_off();
            let now = sched_getaffinity(gettid()).unwrap();
            match &*place.kept.lock() {
                Some(kept) => assert!(kept.all == all && kept.rest == now && now != all),
                None => assert_eq!(now, all),
            }
            place.let_go();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
        });
    }

    #[test]
    fn what_somebody_else_says_meanwhile_stands() {
        apart(|place, all| {
            place.note();
            place.keep_off();
            let rest = sched_getaffinity(gettid()).unwrap();
            let Some(off) = processors(&all).into_iter().find(|i| rest.is_set(*i) == Ok(false))
            else {
                return;
            };
            let mut only = CpuSet::new();
            only.set(off).unwrap();
            assert!(set(gettid(), &only));
            place.let_go();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), only);
        });
    }

    /// With one processor there is no other, and it stays where it is.
    #[test]
    fn a_thread_with_one_processor_stays() {
        apart(|place, all| {
            let mut only = CpuSet::new();
            only.set(processors(&all)[0]).unwrap();
            assert!(set(gettid(), &only));
            place.note();
            place.keep_off();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), only);
            assert!(place.kept.lock().is_none());
        });
    }

    #[test]
    fn a_thread_that_ran_elsewhere_is_left_alone() {
        apart(|place, all| {
            place.last.store(CpuSet::count() + 1, Relaxed);
            place.keep_off();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
            assert!(place.kept.lock().is_none());
        });
    }
}
