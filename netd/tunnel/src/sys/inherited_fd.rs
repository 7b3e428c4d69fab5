//! Descriptors that the service manager hands over.
//!
//! Unsafe: they come as numbers.

use std::os::fd::{FromRawFd as _, OwnedFd};

/// What systemd kept for this process (sd_listen_fds_with_names(3)), by name. To be
/// called once, before anything else opens descriptors.
pub fn inherited_fds() -> Vec<(String, OwnedFd)> {
    match sd_notify::listen_fds_with_names() {
        // SAFETY: LISTEN_PID says that these are for this process, and nothing else in it
        // has taken them: this is called once, at the start.
        Ok(fds) => fds.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect(),
        Err(error) => {
            tracing::warn!(%error, "can't read the file descriptors that systemd passed (LISTEN_FDS)");
            vec![]
        }
    }
}
