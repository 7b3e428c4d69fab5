//! A sandbox's network namespace, opened where its path means what the runtime meant: in
//! the mount and PID namespaces of the hook that the runtime called.

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, open, statfs},
    io::Errno,
};

use crate::error::{HookError, shown, system};

/// `NSFS_MAGIC` (uapi/linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Opens the namespace at `path`. What is there is looked at first: to open a device could
/// have an effect, and a FIFO would block.
///
/// # Errors
/// What `wrong` makes of the path and what is wrong with it; [`HookError::Exhausted`]. That it
/// is a network namespace, and not the host's, is for netd to find out.
pub fn open_netns(path: &str, wrong: impl Fn(String) -> HookError) -> Result<OwnedFd, HookError> {
    let failed = |error| unopened(path, error, &wrong);
    let filesystem = statfs(path).map_err(failed)?;
    if u64::try_from(filesystem.f_type).ok() != Some(NSFS_MAGIC) {
        return Err(wrong(format!("{} is not a network namespace", shown(path))));
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    open(path, flags, Mode::empty()).map_err(failed)
}

fn unopened(path: &str, error: Errno, wrong: impl Fn(String) -> HookError) -> HookError {
    match error {
        Errno::NOENT | Errno::NOTDIR => wrong(format!(
            "{}: there is nothing at this path; the sandbox may have ended",
            shown(path)
        )),
        // It says nothing about the path.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => HookError::Exhausted {
            what: "opening the sandbox's network namespace",
            reason: system(error),
        },
        other => wrong(format!("{} can't be opened: {}", shown(path), system(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(problem: String) -> HookError {
        HookError::Environment { variable: "CNI_NETNS", problem }
    }

    fn problem(path: &str) -> String {
        let error = open_netns(path, wrong).unwrap_err();
        assert_eq!(error.cni_code(), 4, "{error}");
        error.to_string()
    }

    #[test]
    fn what_the_system_is_short_of_is_no_fault_of_the_path() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
            assert_eq!(unopened("/x", errno, wrong).cni_code(), 11);
        }
        let error = unopened("/x", Errno::MFILE, wrong).to_string();
        assert!(error.contains("too many open files"), "{error}");
    }

    #[test]
    fn a_namespace_is_opened_and_nothing_else() {
        assert!(open_netns("/proc/self/ns/net", wrong).is_ok());
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        for path in [file.to_str().unwrap(), "/", "/dev/null"] {
            assert!(problem(path).contains("is not a network namespace"));
        }
        for path in ["/nonexistent", "/proc/self/status/x"] {
            assert!(problem(path).contains("there is nothing"), "{path}");
        }
    }
}
