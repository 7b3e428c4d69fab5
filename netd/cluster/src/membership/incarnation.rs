//! What tells this machine from another one that has a copy of its disk.
//!
//! The id of a node is in the state directory, and whoever copies that directory copies the
//! id. The incarnation is in the run directory, which no copy of a disk contains and no
//! reboot leaves; it counts only for the boot and the network namespace that it was made in.
//! It is the same after netd was killed and started again.

use std::{
    fs, io,
    os::{linux::fs::MetadataExt as _, unix::fs::DirBuilderExt as _},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::files;

const FILE: &str = "incarnation.json";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const OWN_NETNS: &str = "/proc/self/ns/net";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct IncarnationJson {
    incarnation: String,
    boot: String,
    /// Inode of the network namespace.
    netns: u64,
}

/// This machine's incarnation: as it was, or a new one after a reboot, in another network
/// namespace, or on another machine.
///
/// # Errors
/// It can't be made, or not be written to `run_dir`.
pub(super) fn load(run_dir: &Path) -> io::Result<String> {
    let path = run_dir.join(FILE);
    let boot = fs::read_to_string(BOOT_ID)?.trim().to_owned();
    let netns = fs::metadata(OWN_NETNS)?.st_ino();
    let there = fs::read(&path).ok();
    let there = there.and_then(|bytes| serde_json::from_slice::<IncarnationJson>(&bytes).ok());
    if let Some(there) = there.filter(|there| there.boot == boot && there.netns == netns) {
        return Ok(there.incarnation);
    }
    let made = IncarnationJson { incarnation: files::random_uuid()?, boot, netns };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    files::write(&path, &serde_json::to_vec(&made)?)?;
    Ok(made.incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_its_boot_and_its_namespace() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), first, "netd was started again");
        let path = dir.path().join(FILE);
        let json: IncarnationJson = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for other in [
            IncarnationJson { boot: "another".into(), ..json.clone() },
            IncarnationJson { netns: json.netns + 1, ..json },
        ] {
            fs::write(&path, serde_json::to_vec(&other).unwrap()).unwrap();
            assert_ne!(load(dir.path()).unwrap(), first, "{other:?}");
        }
        fs::write(&path, "junk").unwrap();
        assert_ne!(load(dir.path()).unwrap(), first);
        assert_ne!(load(tempfile::tempdir().unwrap().path()).unwrap(), first, "another machine");
    }
}
