//! How many connections the gRPC socket serves, and for whom. A new connection always gets in:
//! where there are too many it takes the place of the one that has said nothing for longest,
//! of the user's own if that has its share. So a user's connections, silent ones too, keep
//! neither others nor root from calling.

use std::{
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

/// The most connections at a time, where enough descriptors are allowed.
const MAX_CONNECTIONS: usize = 512;
/// Of the descriptors that netd may have open, the gRPC connections get this part. The rest is
/// for its own sockets and files, the hooks' and the metrics' connections, and attaches.
const PART: u64 = 8;
/// Between two closed connections that are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
const ROOT: u32 = 0;

/// Numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// All together.
    all: usize,
    /// All that are not root's.
    others: usize,
    /// Those of one user other than root.
    each: usize,
}

impl Limits {
    /// What the process's limit of open files allows.
    pub(crate) fn of_this_process() -> Self {
        Self::of(descriptors())
    }

    fn of(descriptors: u64) -> Self {
        let all = usize::try_from(descriptors / PART).unwrap_or(MAX_CONNECTIONS);
        let all = all.clamp(8, MAX_CONNECTIONS);
        Self { all, others: all / 2, each: all / 4 }
    }
}

/// How many files the process may have open (RLIMIT_NOFILE); 1024 if that can't be read.
pub(crate) fn descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// The connections that are open.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    start: Instant,
    open: Mutex<Vec<Arc<Open>>>,
    /// When a closed connection was logged last.
    logged: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Open {
    uid: u32,
    descriptor: RawFd,
    /// When its client was heard last, milliseconds since [`Admission::start`].
    heard: AtomicU64,
}

/// One connection's place, given back when dropped: before its descriptor is closed.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    open: Arc<Open>,
}

impl Admission {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        let (open, logged) = Default::default();
        Arc::new(Self { limits, start: Instant::now(), open, logged })
    }

    /// A place for a new connection of this user, which has this descriptor.
    pub(crate) fn admit(self: &Arc<Self>, uid: u32, descriptor: RawFd) -> Place {
        let heard = AtomicU64::new(self.now());
        let new = Arc::new(Open { uid, descriptor, heard });
        let mut open = self.open.lock();
        while let Some(at) = surplus(&open, self.limits, uid) {
            // It is out of the list from here on; its task ends when it reads the end.
            let closed = open.swap_remove(at);
            // It fails if the client has closed it already.
            let _ = shutdown(closed.descriptor, Shutdown::Both);
            self.log(closed.uid);
        }
        open.push(new.clone());
        Place { admission: self.clone(), open: new }
    }

    fn log(&self, uid: u32) {
        let mut logged = self.logged.lock();
        if logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *logged = Some(Instant::now());
            tracing::warn!(
                uid,
                "closed a silent connection of uid {uid} to the gRPC socket: there are too many \
                 (at most {} of a user, {} of all)",
                self.limits.each,
                self.limits.all
            );
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The connection that has to go before `uid` gets another one, if one has to.
fn surplus(open: &[Arc<Open>], limits: Limits, uid: u32) -> Option<usize> {
    let of = |uid: u32| open.iter().filter(|o| o.uid == uid).count();
    let roots = of(ROOT);
    if uid != ROOT && of(uid) >= limits.each {
        return most_silent(open, |o| o.uid == uid);
    }
    if uid != ROOT && open.len() - roots >= limits.others {
        // Of the user with the most, so that one with few keeps them.
        let others = open.iter().map(|o| o.uid).filter(|uid| *uid != ROOT);
        let greedy = others.max_by_key(|uid| of(*uid))?;
        return most_silent(open, |o| o.uid == greedy);
    }
    if open.len() >= limits.all {
        return most_silent(open, |o| o.uid != ROOT).or_else(|| most_silent(open, |_| true));
    }
    None
}

fn most_silent(open: &[Arc<Open>], eligible: impl Fn(&Open) -> bool) -> Option<usize> {
    let found = open.iter().enumerate().filter(|(_, o)| eligible(o));
    found.min_by_key(|(_, o)| o.heard.load(Relaxed)).map(|(at, _)| at)
}

impl Place {
    /// Its client has sent something.
    pub(crate) fn heard(&self) {
        self.open.heard.store(self.admission.now(), Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.open.lock().retain(|open| !Arc::ptr_eq(open, &self.open));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { all: 32, others: 16, each: 8 };
    /// No descriptor: shutdown(2) refuses it.
    const NONE: RawFd = -1;

    fn of(admission: &Admission, uid: u32) -> usize {
        admission.open.lock().iter().filter(|o| o.uid == uid).count()
    }

    #[test]
    fn the_limits_leave_descriptors_for_all_else() {
        assert_eq!(Limits::of(256), LIMITS);
        assert_eq!(Limits::of(65536).all, MAX_CONNECTIONS);
        assert_eq!(Limits::of(0).all, 8);
    }

    #[test]
    fn a_user_has_a_share_and_everybody_gets_in() {
        let admission = Admission::new(LIMITS);
        let mut places: Vec<_> = (0..100).map(|_| admission.admit(1000, NONE)).collect();
        assert_eq!(of(&admission, 1000), 8);
        places.extend((0..100).map(|_| admission.admit(1001, NONE)));
        places.push(admission.admit(1002, NONE));
        assert_eq!(of(&admission, 1002), 1);
        assert_eq!(admission.open.lock().len(), 16);
        places.extend((0..100).map(|_| admission.admit(ROOT, NONE)));
        // Root may take all places, and takes others' before its own.
        assert_eq!((of(&admission, ROOT), admission.open.lock().len()), (32, 32));
        drop(places);
        assert!(admission.open.lock().is_empty());
    }

    #[test]
    fn the_most_silent_one_goes() {
        let admission = Admission::new(Limits { all: 3, others: 3, each: 3 });
        let places: Vec<_> = (0..3).map(|_| admission.admit(7, NONE)).collect();
        for (place, heard) in places.iter().zip([30, 10, 20]) {
            place.open.heard.store(heard, Relaxed);
        }
        let new = admission.admit(7, NONE);
        let open = admission.open.lock();
        let is_open = |place: &Place| open.iter().any(|o| Arc::ptr_eq(o, &place.open));
        assert_eq!(places.iter().map(is_open).collect::<Vec<_>>(), [true, false, true]);
        assert!(is_open(&new));
    }
}
