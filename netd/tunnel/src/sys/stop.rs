//! Waits for a descriptor, or to be told to stop.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Tells every thread with its [`Stop`] to end, when it is dropped.
#[derive(Debug)]
pub(crate) struct Stopper {
    /// The reader sees the end of the pipe when this is gone.
    _writer: io::PipeWriter,
    set: Arc<AtomicBool>,
}

/// What a thread looks at while it waits, and between.
#[derive(Debug, Clone)]
pub struct Stop {
    reader: Arc<io::PipeReader>,
    set: Arc<AtomicBool>,
}

impl Stopper {
    /// A pair.
    ///
    /// # Errors
    /// The system's: no descriptors left.
    pub(crate) fn new() -> io::Result<(Self, Stop)> {
        let (reader, writer) = io::pipe()?;
        let set = Arc::new(AtomicBool::new(false));
        Ok((Self { _writer: writer, set: set.clone() }, Stop { reader: Arc::new(reader), set }))
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.set.store(true, Ordering::Release);
    }
}

impl Stop {
    /// Whether the thread is to end.
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }
}

/// Why [`wait`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There may be something to do.
    Ready,
    /// The time is over.
    TimedOut,
    /// The thread is to end.
    Stop,
}

/// Waits until `fd` can be read (or, `writable`, written), for at most `timeout`
/// milliseconds (`None`: as long as it takes). Without `fd`: only for the stop.
pub fn wait(fd: Option<BorrowedFd<'_>>, writable: bool, stop: &Stop, timeout: Option<u16>) -> Wake {
    let events = if writable { PollFlags::POLLOUT } else { PollFlags::POLLIN };
    let mut fds = vec![PollFd::new(stop.reader.as_fd(), PollFlags::POLLIN)];
    fds.extend(fd.map(|fd| PollFd::new(fd, events)));
    let polled = poll(&mut fds, timeout.map_or(PollTimeout::NONE, PollTimeout::from));
    let stopped = fds.first().and_then(PollFd::any).unwrap_or(true);
    match polled {
        _ if stopped => Wake::Stop,
        Ok(0) => Wake::TimedOut,
        _ => Wake::Ready,
    }
}

/// Waits until one of `fds` can be read, as long as it takes; `ready` says which, in the
/// same order.
pub(crate) fn wait_any(fds: &[BorrowedFd<'_>], ready: &mut [bool], stop: &Stop) -> Wake {
    let read = |fd| PollFd::new(fd, PollFlags::POLLIN);
    let mut polled: Vec<_> = fds.iter().map(|fd| read(*fd)).collect();
    polled.push(read(stop.reader.as_fd()));
    if poll(&mut polled, PollTimeout::NONE).is_err() {
        // A signal: look at all of them.
        ready.fill(true);
        return Wake::Ready;
    }
    // Errors are told by who reads.
    let any = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
    for (ready, fd) in ready.iter_mut().zip(&polled) {
        *ready = any(fd);
    }
    if polled.last().is_some_and(any) { Wake::Stop } else { Wake::Ready }
}
