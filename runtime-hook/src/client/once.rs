//! A connection for a process that makes a call and ends.
//!
//! A runtime waits for the hook with every pod, so there is no reactor to set up: futures
//! take turns on this thread, and when all of them wait it is for netd. HTTP/2's preface
//! and settings, a request's head and its body are written one by one; sent like that,
//! each wakes netd. Here they leave together.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use parking_lot::Mutex;

/// Bytes read at once; answers are a few hundred.
const READ: usize = 8 << 10;

/// The connection. Clones are the same one.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

struct State {
    stream: UnixStream,
    until: Instant,
    /// Written, not sent yet.
    out: Vec<u8>,
    /// Received, not read yet.
    input: Vec<u8>,
    /// Nothing more will be received: the end, or why.
    ended: Option<io::Result<()>>,
}

impl Wire {
    /// Connects; never waits. Until [`Wire::give`] says else, there is no time to read.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when the listener's queue is full.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        #[allow(clippy::disallowed_methods)] // a Unix one
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        let stream = UnixStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok(Self(Arc::new(Mutex::new(State {
            stream,
            until: Instant::now(),
            out: Vec::new(),
            input: Vec::new(),
            ended: None,
        }))))
    }

    /// Everything from now on has to be done in `time`, or a year.
    pub fn give(&self, time: Duration) {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        self.0.lock().until = Instant::now() + time.min(YEAR);
    }

    /// Whether time is over. (netd knows the time too, and may say so first.)
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.0.lock().until
    }
}

impl State {
    /// Sends what there is to send and waits for some answer.
    fn exchange(&mut self) {
        let mut buffer = [0; READ];
        match self.send().and_then(|()| self.receive(&mut buffer)) {
            Ok(0) => self.ended = Some(Ok(())),
            Ok(n) => self.input.extend_from_slice(&buffer[..n]),
            Err(e) => self.ended = Some(Err(e)),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&std::mem::take(&mut self.out))
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        let n = state.input.len().min(to.remaining());
        if n > 0 {
            to.put_slice(&state.input[..n]);
            state.input.drain(..n);
            return Poll::Ready(Ok(()));
        }
        match &mut state.ended {
            None => Poll::Pending,
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(()))),
        }
    }
}

impl Write for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().out.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The process ends; the kernel closes it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Futures that go on beside the one that is waited for.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<Vec<Task>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().push(Box::pin(task));
    }
}

/// Somebody can go on.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` and `tasks` on this thread until `work` is done.
pub fn run<T>(wire: &Wire, tasks: &Tasks, work: impl Future<Output = T>) -> T {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let mut cx = Context::from_waker(&waker);
    let mut work = pin!(work);
    let mut running = Vec::new();
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut cx) {
            return done;
        }
        running.append(&mut tasks.0.lock());
        running.retain_mut(|task: &mut Task| task.as_mut().poll(&mut cx).is_pending());
        let fresh = !tasks.0.lock().is_empty();
        if !fresh && !woken.0.swap(false, Ordering::Relaxed) {
            wire.0.lock().exchange();
        }
    }
}
