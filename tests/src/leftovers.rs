//! Takes away what a test made, also what an earlier, killed run left.
//!
//! Every process, mount and file of a bed names the bed's directory, which has
//! the test's pid in it. Nothing else is ever touched.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{kubernetes::cgroups, wait};

/// Beds are `PREFIX<pid>-<counter>` in the temporary directory.
pub const PREFIX: &str = "netd-bed-";

/// Removes the beds of test processes that are gone.
pub(crate) fn sweep_dead() {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        let Some(owner) = owner.and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        if !Path::new(&format!("/proc/{owner}")).exists() {
            remove(&entry.path());
        }
    }
}

/// Ends the bed's processes, unmounts its mounts and deletes its directory.
pub fn remove(bed: &Path) {
    // Container processes don't name the bed themselves, but their shim does. A
    // process that is just starting another may be missed by one look.
    for _ in 0..5 {
        let processes = processes_of(bed);
        if processes.is_empty() {
            break;
        }
        for pid in processes {
            let _ = kill(pid, Signal::SIGKILL);
        }
        wait::pause(Duration::from_millis(20));
    }
    for _ in 0..3 {
        let mounts = mounts_below(bed);
        if mounts.is_empty() {
            break;
        }
        for mount in mounts.iter().rev() {
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
    }
    cgroups::remove(bed);
    if let Err(error) = fs::remove_dir_all(bed) {
        eprintln!("left behind: {}: {error}", bed.display());
    }
}

/// The processes started with the bed's path in an argument, and all their descendants.
fn processes_of(bed: &Path) -> Vec<Pid> {
    let needle = format!("{}/", bed.display());
    let own = std::process::id();
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != own && String::from_utf8_lossy(&arguments).contains(&needle) {
            found.push(pid);
        }
    }
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        for child in children.remove(&pid).unwrap_or_default() {
            if !found.contains(&child) && child != own {
                found.push(child);
            }
        }
        next += 1;
    }
    found.into_iter().filter_map(|pid| Some(Pid::from_raw(i32::try_from(pid).ok()?))).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // A zombie is dead already; its parent only has not looked.
    if status.lines().any(|line| line.starts_with("State:") && line.contains('Z')) {
        return None;
    }
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn mounts_below(bed: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|point| point.starts_with(bed)).collect()
}
