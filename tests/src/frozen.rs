//! One thread of another process, stopped: to its process it hangs.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use crate::wait;

/// A thread that goes on when this is dropped, on the test's thread that froze it.
#[derive(Debug)]
pub struct Frozen {
    thread: Pid,
}

impl Frozen {
    /// Stops the thread of process `pid` that has this name.
    pub fn freeze(pid: u32, name: &str) -> Result<Self> {
        let (thread, _) = wait::until(Duration::from_secs(5), name, || find(pid, name))?;
        ptrace::seize(thread, ptrace::Options::empty()).context("seize: be root")?;
        let frozen = Self { thread };
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(frozen)
    }
}

fn find(pid: u32, name: &str) -> Result<Pid> {
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if comm.trim() == name {
            let number = entry.file_name().to_string_lossy().parse()?;
            return Ok(Pid::from_raw(number));
        }
    }
    bail!("process {pid} has no thread {name}")
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // A process that was killed meanwhile has no such thread.
        let _ = ptrace::detach(self.thread, None);
    }
}
