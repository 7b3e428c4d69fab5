//! The thread that listens. It goes on until nobody wants the events: a listener that fails is
//! opened again, and what may have been missed meanwhile is reported.

use std::{
    io,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use tokio::sync::mpsc::UnboundedSender;

use super::listener::{Ended, Listener, Subject};
use crate::{
    DataplaneError, Drift,
    error::failed,
    exec::{context::SharedContext, namespace::go_home, pulse::Pulse},
    firewall::OwnChanges,
};
use netd_domain::Backoff;

const THREAD: &str = "netd-events";
/// Between two attempts to listen.
const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// A listener that lasted this long works: the next failure is a new one.
const LASTING: Duration = Duration::from_secs(60);

/// Why changes by other programs go unnoticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventsTrouble {
    /// The sockets failed; they are opened again.
    Failed(String),
    /// The thread has done nothing for this long.
    Hangs(Duration),
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub(crate) struct Listening {
    _end: io::PipeWriter,
    pulse: Arc<Pulse>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Listening {
    /// As [`crate::Dataplane::events_trouble`].
    pub(crate) fn trouble(&self) -> Option<EventsTrouble> {
        let problem = self.problem.lock().clone();
        let silence = self.pulse.silence(Instant::now());
        match (problem, silence) {
            (Some(why), _) => Some(EventsTrouble::Failed(why)),
            (None, silence) => silence.map(|silence| EventsTrouble::Hangs(silence.time)),
        }
    }
}

/// Starts to listen on a thread of its own. Everything that happens after this returns is
/// noticed, except what the socket with port `quiet` causes: it makes ten thousand changes
/// at a time.
pub(crate) fn listen(
    shared: Arc<SharedContext>,
    quiet: u32,
    own: OwnChanges,
    drift: UnboundedSender<Drift>,
) -> Result<Listening, DataplaneError> {
    let what = "listening to the kernel's events";
    let (end, writer) = io::pipe().map_err(failed(what))?;
    let (ready, started) = std::sync::mpsc::channel();
    let (pulse, problem) = (Arc::new(Pulse::new(THREAD)), Arc::default());
    let state =
        Listening { _end: writer, pulse: Arc::clone(&pulse), problem: Arc::clone(&problem) };
    let body = move || {
        let home = shared.settings.host_netns.clone();
        let subject = Subject { shared, quiet, own, drift };
        match go_home(home).and_then(|()| Listener::open(subject.clone())) {
            Err(e) => drop(ready.send(Err(e))),
            Ok(listener) => {
                if ready.send(Ok(())).is_ok() {
                    keep_listening(listener, &subject, &end, &pulse, &problem);
                }
            }
        }
    };
    std::thread::Builder::new()
        .name(THREAD.into())
        .spawn(body)
        .map_err(failed("starting the thread netd-events"))?;
    let died = |_| failed(what)(io::Error::other("the thread died"));
    started.recv().map_err(died)??;
    Ok(state)
}

fn keep_listening(
    mut listener: Listener,
    subject: &Subject,
    end: &io::PipeReader,
    pulse: &Pulse,
    problem: &Mutex<Option<String>>,
) {
    let mut retry = RETRY;
    loop {
        let began = Instant::now();
        let Ended::Failed(why) = listener.run(end, pulse) else { return };
        if began.elapsed() >= LASTING {
            retry.reset();
        }
        tracing::error!(
            "the kernel's events can't be heard, changes by other programs go unnoticed: {why}; trying again"
        );
        *problem.lock() = Some(why.to_string());
        listener = loop {
            // The whole delay: no other thread tries.
            if is_over(end, retry.next_delay(1.0)) || subject.drift.is_closed() {
                return;
            }
            pulse.beat();
            match Listener::open(subject.clone()) {
                Ok(listener) => break listener,
                Err(error) => *problem.lock() = Some(error.to_string()),
            }
        };
        tracing::info!("the kernel's events are heard again");
        *problem.lock() = None;
        // Whatever happened meanwhile was not heard. A closed channel is noticed by `run`.
        drop(subject.drift.send(Drift::Underlay));
        drop(subject.drift.send(Drift::Everything));
    }
}

/// Waits; `true`: the events are not wanted any longer.
fn is_over(end: &io::PipeReader, delay: Duration) -> bool {
    let mut fds = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(delay).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(ready) => ready > 0,
        Err(_) => {
            // Nothing else can be waited for, and this thread has nothing else to do.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(delay);
            false
        }
    }
}
