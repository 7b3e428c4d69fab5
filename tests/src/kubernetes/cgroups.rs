//! A node's part of the cgroups (version 1, or the unified tree alone).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";

/// The name of a host's cgroup, below each tree.
pub(super) fn name(directory: &Path) -> String {
    let parts = directory.components().rev().take(2).collect::<Vec<_>>();
    let names = parts.iter().rev().map(|part| part.as_os_str().to_string_lossy().into_owned());
    names.collect::<Vec<_>>().join("-")
}

/// Makes it in each tree.
pub(super) fn make(name: &str) -> Result<()> {
    for tree in trees() {
        let own = tree.join(name);
        fs::create_dir_all(&own)?;
        // Without these no process may be put into it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(tree.join(file)) {
                fs::write(own.join(file), all)?;
            }
        }
    }
    Ok(())
}

/// Removes the cgroups of a bed, whose processes have ended or are about to.
pub(crate) fn remove(bed: &Path) {
    let Some(bed) = bed.file_name().and_then(|name| name.to_str()) else { return };
    let begins = format!("{bed}-");
    // A process that was killed keeps its cgroup until it is out of the kernel.
    for _ in 0..50 {
        let left = own(&begins);
        if left.is_empty() {
            return;
        }
        left.iter().for_each(|cgroup| remove_tree(cgroup));
        wait::pause(Duration::from_millis(20));
    }
    if let Some(left) = own(&begins).first() {
        eprintln!("left behind: {}", left.display());
    }
}

fn own(begins: &str) -> Vec<PathBuf> {
    let entries =
        trees().into_iter().filter_map(|tree| fs::read_dir(tree).ok()).flatten().flatten();
    let is_own = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(begins))
    };
    entries.map(|entry| entry.path()).filter(is_own).collect()
}

/// The files in a cgroup go with its directory.
fn remove_tree(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Version 2 is one tree; version 1 has one for each controller.
fn trees() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.join("cgroup.procs").exists()).collect()
}
