//! Threads that own blocking kernel work, one job after the other.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::oneshot;

use super::{cpu_affinity::CpuAffinity, namespace::go_home};
use crate::DataplaneError;

type Job<S> = Box<dyn FnOnce(&mut S) + Send>;

/// A thread with its own state. It ends when the worker is dropped.
#[derive(Debug)]
pub(crate) struct Worker<S> {
    name: &'static str,
    affinity: Arc<CpuAffinity>,
    /// See [`Worker::helping`].
    helps: bool,
    jobs: mpsc::Sender<Job<S>>,
}

impl<S> Clone for Worker<S> {
    fn clone(&self) -> Self {
        Self { affinity: self.affinity.clone(), jobs: self.jobs.clone(), ..*self }
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
                affinity.note_cpu();
            }
        };
        thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|e| failed(format!("starting the thread {name}"), e))?;
        let affinity = ready.recv().map_err(|_| gone(name))??;
        Ok(Self { name, affinity, helps: false, jobs })
    }

    /// Its jobs run on another processor than their callers, who go on meanwhile.
    pub(crate) fn helping(self) -> Self {
        Self { helps: true, ..self }
    }

    /// Queues a job; it runs even if the caller goes away before the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut S) -> Result<T, DataplaneError> + Send + 'static,
    ) -> Result<T, DataplaneError> {
        let (answer, wait) = oneshot::channel();
        let job: Job<S> = Box::new(move |state| drop(answer.send(job(state))));
        self.send(job)?;
        wait.await.map_err(|_| gone(self.name))?
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
        Pending { name: self.name, affinity: self.affinity.clone(), wait }
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
    wait: mpsc::Receiver<Result<T, DataplaneError>>,
}

impl<T> Pending<T> {
    /// Blocks until the job is done.
    pub(crate) fn wait(self) -> Result<T, DataplaneError> {
        if let Ok(done) = self.wait.try_recv() {
            return done;
        }
        // This thread only waits from here on.
        self.affinity.restore();
        self.wait.recv().map_err(|_| gone(self.name))?
    }
}

fn gone(name: &str) -> DataplaneError {
    failed(format!("asking the thread {name}"), "it has died; netd has to be restarted")
}

fn failed(what: String, reason: impl std::fmt::Display) -> DataplaneError {
    DataplaneError::Io { what, reason: reason.to_string() }
}
