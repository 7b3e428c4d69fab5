//! Keeps a helper's thread off the processor of the thread that it helps.
//!
//! In a virtual machine an idle processor often looks busy to the scheduler
//! (`vcpu_is_preempted` in kernel/sched/fair.c). It then wakes the helper on the caller's
//! processor, and the two run one after the other instead of at the same time. So the caller
//! excludes its processor from the helper's affinity, until it only waits for the helper.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_getcpu},
    unistd::{Pid, SysconfVar, gettid, sysconf},
};
use parking_lot::Mutex;

/// Whether the administrator lets this process run on every processor that is online: has set
/// neither a cpuset nor an affinity. `false` also where the kernel has more processors than a
/// [`CpuSet`] has room for.
pub fn may_use_every_cpu() -> bool {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return false };
    let allowed = (0..CpuSet::count()).filter(|i| allowed.is_set(*i) == Ok(true)).count();
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten();
    online.is_some_and(|online| usize::try_from(online) == Ok(allowed))
}

const UNKNOWN: usize = usize::MAX;

/// The affinity of a helper's thread.
#[derive(Debug)]
pub(crate) struct CpuAffinity {
    thread: Pid,
    /// Index of the processor on which it ran last.
    last: AtomicUsize,
    excluded: Mutex<Option<Excluded>>,
}

/// The affinity while a processor is excluded.
#[derive(Debug)]
struct Excluded {
    /// As the administrator set it.
    all: CpuSet,
    /// Without the excluded processor.
    rest: CpuSet,
}

impl CpuAffinity {
    pub(crate) fn of_this_thread() -> Self {
        Self { thread: gettid(), last: AtomicUsize::new(UNKNOWN), excluded: Mutex::new(None) }
    }

    /// Excludes the caller's processor: the caller is about to wake the thread, and goes on.
    /// Where the kernel refuses it (one processor, or more than a [`CpuSet`] has room for),
    /// nothing changes.
    pub(crate) fn exclude_this_cpu(&self) {
        let Ok(here) = sched_getcpu() else { return };
        if here != self.last.load(Relaxed) {
            return;
        }
        let mut kept = self.excluded.lock();
        let Ok(now) = sched_getaffinity(self.thread) else { return };
        let all = match &*kept {
            Some(kept) if kept.rest == now => kept.all,
            // Nothing is excluded, or the administrator has set the affinity since.
            _ => now,
        };
        let rest = without(&all, here);
        if set(self.thread, &rest) {
            *kept = Some(Excluded { all, rest });
        }
    }

    /// Gives the thread its whole affinity back.
    pub(crate) fn restore(&self) {
        let kept = self.excluded.lock().take();
        let Some(kept) = kept else { return };
        if sched_getaffinity(self.thread) == Ok(kept.rest) {
            set(self.thread, &kept.all);
        }
    }

    /// The thread notes the processor on which it runs.
    pub(crate) fn note_cpu(&self) {
        self.last.store(sched_getcpu().unwrap_or(UNKNOWN), Relaxed);
    }
}

#[allow(clippy::disallowed_methods)] // the only file that sets an affinity
fn set(thread: Pid, processors: &CpuSet) -> bool {
    nix::sched::sched_setaffinity(thread, processors).is_ok()
}

fn without(all: &CpuSet, processor: usize) -> CpuSet {
    let mut rest = *all;
    // A processor beyond the set's room is not in the set.
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

    #[test]
    fn an_affinity_of_the_administrators_is_seen() {
        apart(|_, all| {
            assert!(may_use_every_cpu(), "this test needs every processor");
            let one = processors(&all)[0];
            assert!(set(gettid(), &without(&all, one)) != may_use_every_cpu());
        });
    }

    /// On a thread of its own, whose affinity changes.
    fn apart(f: impl FnOnce(CpuAffinity, CpuSet) + Send + 'static) {
        let body = || f(CpuAffinity::of_this_thread(), sched_getaffinity(gettid()).unwrap());
        std::thread::spawn(body).join().unwrap();
    }

    #[test]
    fn it_is_kept_off_the_callers_processor_until_it_is_let_go() {
        apart(|place, all| {
            // It depends on the machine whether there is another processor.
            place.note_cpu();
            place.exclude_this_cpu();
            let now = sched_getaffinity(gettid()).unwrap();
            match &*place.excluded.lock() {
                Some(kept) => assert!(kept.all == all && kept.rest == now && now != all),
                None => assert_eq!(now, all),
            }
            place.restore();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
        });
    }

    #[test]
    fn an_affinity_that_the_administrator_sets_meanwhile_stands() {
        apart(|place, all| {
            place.note_cpu();
            place.exclude_this_cpu();
            let rest = sched_getaffinity(gettid()).unwrap();
            let Some(off) = processors(&all).into_iter().find(|i| rest.is_set(*i) == Ok(false))
            else {
                return;
            };
            let mut only = CpuSet::new();
            only.set(off).unwrap();
            assert!(set(gettid(), &only));
            place.restore();
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
            place.note_cpu();
            place.exclude_this_cpu();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), only);
            assert!(place.excluded.lock().is_none());
        });
    }

    #[test]
    fn a_thread_that_ran_elsewhere_is_left_alone() {
        apart(|place, all| {
            place.last.store(CpuSet::count() + 1, Relaxed);
            place.exclude_this_cpu();
            assert_eq!(sched_getaffinity(gettid()).unwrap(), all);
            assert!(place.excluded.lock().is_none());
        });
    }
}
