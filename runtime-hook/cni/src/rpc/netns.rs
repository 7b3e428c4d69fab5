//! A sandbox's network namespace, opened where its path means what the runtime meant: in
//! the mount and PID namespaces of the hook that the runtime called.

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, open, statfs},
    io::Errno,
};

use crate::error::{shown, system};

/// `NSFS_MAGIC` (uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Opens the namespace at `path`. What is there is looked at first: to open a device could
/// have an effect, and a FIFO would block.
///
/// # Errors
/// The path and what is wrong with it. That it is a network namespace, and not the host's,
/// is for netd to find out.
pub fn open_netns(path: &str) -> Result<OwnedFd, String> {
    let failed = |error: Errno| match error {
        Errno::NOENT | Errno::NOTDIR => {
            format!("{}: there is nothing at this path; the sandbox may have ended", shown(path))
        }
        other => format!("{} can't be opened: {}", shown(path), system(other)),
    };
    let filesystem = statfs(path).map_err(failed)?;
    if u64::try_from(filesystem.f_type).ok() != Some(NSFS_MAGIC) {
        return Err(format!("{} is not a network namespace", shown(path)));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(path, flags, Mode::empty()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_opened_and_nothing_else() {
        assert!(open_netns("/proc/self/ns/net").is_ok());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.to_str().unwrap(), "/", "/dev/null"] {
            assert!(open_netns(path).unwrap_err().contains("is not a network namespace"));
        }
        for path in ["/nonexistent", "/proc/self/status/x"] {
            assert!(open_netns(path).unwrap_err().contains("there is nothing"), "{path}");
        }
    }
}
