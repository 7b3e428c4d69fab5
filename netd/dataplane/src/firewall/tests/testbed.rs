//! Network namespaces, each a thread that lives in it and does as it is told.

use std::{process::Command, sync::mpsc, thread};

type Job = Box<dyn FnOnce() + Send>;

/// A namespace; it ends with its thread, when this is dropped.
pub(crate) struct Netns {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    /// Thread id: `ip link set ... netns` takes it.
    pub id: i32,
}

/// Whether to go on: kernel tests need root.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

impl Netns {
    pub(crate) fn new() -> Self {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (send, receive) = mpsc::channel();
        let thread = thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            send.send(nix::unistd::gettid().as_raw()).unwrap();
            for job in queue {
                job();
            }
        });
        let id = receive.recv().unwrap();
        let netns = Self { jobs: Some(jobs), thread: Some(thread), id };
        // Addresses are of use at once, without waiting for duplicates to show up.
        netns.sh("echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
             echo 0 > /proc/sys/net/ipv6/conf/default/dad_transmits
             ip link set lo up");
        netns
    }

    /// Does `job` in the namespace and hands back what it gives.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (send, receive) = mpsc::channel();
        let job: Job = Box::new(move || {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            let _ = send.send(outcome);
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        receive.recv().unwrap().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs shell commands; what they print. They have to succeed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = script.to_owned();
        self.run(move || {
            let out = Command::new("sh").args(["-ec", &script]).output().unwrap();
            let error = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(out.status.success(), "{script}\n{error}");
            String::from_utf8(out.stdout).unwrap()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
