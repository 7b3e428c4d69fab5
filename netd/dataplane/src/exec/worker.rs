//! Threads that own blocking kernel work, one job after the other.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    cpu_affinity::CpuAffinity,
    namespace::go_home,
    pulse::{Pulse, STUCK_AFTER, Silence},
};
use crate::DataplaneError;

/// How long a caller waits for a job: less than the plugin's callers do (30 s), so that they
/// get netd's own words.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a thread waits for another one's job. It must not seem to hang itself.
const HELP_TIMEOUT: Duration = Duration::from_secs(8);
const _: () = assert!(HELP_TIMEOUT.as_secs() < STUCK_AFTER.as_secs());
/// How long anyone waits for a thread that is known to hang.
const STUCK_TIMEOUT: Duration = Duration::from_millis(500);

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread with its own state. It ends when the worker is dropped.
#[derive(Debug)]
pub(crate) struct Worker<S> {
    name: &'static str,
    affinity: Arc<CpuAffinity>,
    pulse: Arc<Pulse>,
    /// See [`Worker::helping`].
    helps: bool,
    jobs: mpsc::Sender<Job<S>>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self {
            affinity: self.affinity.clone(),
            pulse: self.pulse.clone(),
            jobs: self.jobs.clone(),
            ..*self
        }
    }
}

impl<S: 'static> Worker<S> {
    /// Starts the thread in the namespace `home` and waits until its state is made there.
    ///
    /// # Errors
    /// What `make` returns, or the system's when there can be no thread.
    pub(crate) fn start(
        name: &'static str,
        home: Option<Arc<OwnedFd>>,
        make: impl FnOnce() -> Result<S, DataplaneError> + Send + 'static,
    ) -> Result<Self, DataplaneError> {
        let (jobs, queue) = mpsc::channel::<Job<S>>();
        let (made, ready) = mpsc::channel();
        let pulse = Arc::new(Pulse::new(name));
        let beating = pulse.clone();
        let body = move || {
            let affinity = Arc::new(CpuAffinity::of_this_thread());
            let state = go_home(home).and_then(|()| make());
            let mut state = match state {
                Ok(state) => state,
                Err(e) => return drop(made.send(Err(e))),
            };
            if made.send(Ok(affinity.clone())).is_err() {
                return;
            }
            while let Ok(job) = queue.recv() {
                job(&mut state);
                beating.beat();
                affinity.note_cpu();
            }
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|e| failed(format!("starting the thread {name}"), e))?;
        let affinity = ready.recv().map_err(|_| gone(name))??;
        Ok(Self { name, affinity, pulse, helps: false, jobs })
    }

    /// Its jobs run on another processor than their callers, who go on meanwhile.
    pub(crate) fn helping(self) -> Self {
        Self { helps: true, ..self }
    }

    /// Queues a job; it runs even if the caller goes away before the answer.
    ///
    /// # Errors
    /// The job's; [`DataplaneError::Busy`] if it is not done in time: then it is left out if
    /// it has not begun, and otherwise goes on to its end, before every later job.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Result<T, DataplaneError> {
        let (answer, mut wait) = oneshot::channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let is_void = given_up.clone();
        let job: Job<S> = Box::new(move |state| {
            if !is_void.load(Relaxed) {
                drop(answer.send(job(state)));
            }
        });
        self.send(job)?;
        let mut waited = Duration::ZERO;
        while waited < patience(&self.pulse, CALL_TIMEOUT) {
            match tokio::time::timeout(STUCK_TIMEOUT, &mut wait).await {
                Ok(answered) => return answered.map_err(|_| gone(self.name))?,
                Err(_) => waited += STUCK_TIMEOUT,
            }
        }
        given_up.store(true, Relaxed);
        Err(busy(self.name, waited))
    }

    /// As [`Worker::call`], for another worker's thread, which has to wait on the result.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Pending<T> {
        let (answer, wait) = mpsc::sync_channel(1);
        let job: Job<S> = Box::new(move |state| drop(answer.send(job(state))));
        // A dead worker drops `answer`, and the wait returns an error.
        drop(self.send(job));
        let (affinity, pulse) = (self.affinity.clone(), self.pulse.clone());
        Pending { name: self.name, affinity, pulse, wait }
    }

    /// How long the thread has hung; `None`: it works. To be called every few seconds: it
    /// gives a thread without work a job that does nothing.
    pub(crate) fn silence(&self) -> Option<Silence> {
        let silence = self.pulse.silence(Instant::now());
        if silence.is_none() {
            // A thread that has died can't take it, and does not beat.
            drop(self.jobs.send(Box::new(|_| {})));
        }
        silence
    }

    fn send(&self, job: Job<S>) -> Result<(), DataplaneError> {
        if self.helps {
            self.affinity.exclude_this_cpu();
        }
        self.jobs.send(job).map_err(|_| gone(self.name))
    }
}

/// A job that another worker does.
pub(crate) struct Pending<T> {
    name: &'static str,
    affinity: Arc<CpuAffinity>,
    pulse: Arc<Pulse>,
    wait: mpsc::Receiver<Result<T, DataplaneError>>,
}

impl<T> Pending<T> {
    /// Blocks until the job is done. One that is late goes on to its end, before every later
    /// job of its thread.
    ///
    /// # Errors
    /// The job's; [`DataplaneError::Busy`] if it is not done in time.
    pub(crate) fn wait(self) -> Result<T, DataplaneError> {
        if let Ok(done) = self.wait.try_recv() {
            return done;
        }
        // This thread only waits from here on.
        self.affinity.restore();
        let limit = patience(&self.pulse, HELP_TIMEOUT);
        self.wait.recv_timeout(limit).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => busy(self.name, limit),
            mpsc::RecvTimeoutError::Disconnected => gone(self.name),
        })?
    }
}

fn patience(pulse: &Pulse, usual: Duration) -> Duration {
    if pulse.is_stuck() { STUCK_TIMEOUT } else { usual }
}

fn busy(thread: &'static str, waited: Duration) -> DataplaneError {
    DataplaneError::Busy { thread, waited }
}

fn gone(name: &str) -> DataplaneError {
    failed(format!("asking the thread {name}"), "it has died; netd has to be restarted")
}

fn failed(what: String, reason: impl std::fmt::Display) -> DataplaneError {
    DataplaneError::Io { what, reason: reason.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn worker() -> Worker<Vec<u32>> {
        Worker::start("netd-test", None, || Ok(Vec::new())).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_a_thread_that_hangs_ends_and_its_job_is_left_out() {
        let worker = worker();
        let (release, held) = mpsc::channel::<()>();
        let hanging = worker.begin(move |_| {
            let _ = held.recv();
            Ok(())
        });
        let late = worker.call(|done| {
            done.push(1);
            Ok(())
        });
        let failed = late.await.unwrap_err();
        assert!(matches!(failed, DataplaneError::Busy { thread: "netd-test", .. }), "{failed}");
        drop(release);
        hanging.wait().unwrap();
        // Its caller was told that it failed, so it must not take effect later.
        assert!(worker.begin(|done| Ok(done.clone())).wait().unwrap().is_empty());
    }

    #[test]
    fn a_thread_with_and_without_work_beats() {
        let worker = worker();
        for _ in 0..3 {
            let before = worker.pulse.clone();
            assert_eq!(worker.silence(), None);
            worker.begin(|_| Ok(())).wait().unwrap();
            assert!(!before.is_stuck());
        }
    }
}
