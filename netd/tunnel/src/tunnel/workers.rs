//! The threads of a tunnel: one a queue, one for time.

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::{queue_worker::QueueWorker, shared::Shared};
use crate::sys::{Stop, Stopper, Wake, wait};

/// Milliseconds between looks at the timers.
const TICK: u16 = 250;

/// Threads that end, and are waited for, when this is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    stopper: Option<Stopper>,
    stop: Stop,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// One for each queue of the device and the sockets of the same number.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn serve(shared: &Arc<Shared>) -> io::Result<Self> {
        let mut threads = Self::new()?;
        for queue in 0..shared.queues.len() {
            let shared = shared.clone();
            let body = move |stop: Stop| QueueWorker::new(&shared, queue, &stop).serve();
            threads.spawn(format!("tunnel-{queue}"), body)?;
        }
        Ok(threads)
    }

    /// Looks at the timers.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn tick(shared: &Arc<Shared>) -> io::Result<Self> {
        let mut threads = Self::new()?;
        let shared = shared.clone();
        threads.spawn("tunnel-timers".into(), move |stop| tick(&shared, &stop))?;
        Ok(threads)
    }

    fn new() -> io::Result<Self> {
        let (stopper, stop) = Stopper::new()?;
        Ok(Self { stopper: Some(stopper), stop, handles: vec![] })
    }

    fn spawn(&mut self, name: String, body: impl FnOnce(Stop) + Send + 'static) -> io::Result<()> {
        let stop = self.stop.clone();
        self.handles.push(thread::Builder::new().name(name).spawn(move || body(stop))?);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.stopper.take());
        for handle in self.handles.drain(..) {
            if handle.join().is_err() {
                tracing::error!("a tunnel's thread panicked");
            }
        }
    }
}

fn tick(shared: &Shared, stop: &Stop) {
    let mut gear = super::queue_worker::Gear::default();
    while wait(None, false, stop, Some(TICK)) != Wake::Stop {
        let links = shared.links.load();
        let mut sending = gear.sending(&links, 0, stop);
        let needed = shared.engine.tick(&mut sending);
        sending.account(&shared.counters);
        if !needed {
            return;
        }
    }
}
