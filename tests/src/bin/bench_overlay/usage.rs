//! What a process has used so far.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};

/// Processor time of all its threads.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = task?.path().join("schedstat");
        // A thread may just have ended.
        let text = fs::read_to_string(path).unwrap_or_default();
        let time = text.split(' ').next().and_then(|time| time.parse::<u64>().ok());
        total += time.unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory, KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}
