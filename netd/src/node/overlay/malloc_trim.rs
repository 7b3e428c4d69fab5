//! Returns the memory of a large comparison to the system.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// Comparisons of fewer objects are too small to matter.
const MIN_OBJECTS: usize = 2000;
/// The work that follows a start (writing the state file, the watch) is over by then.
const TRIM_DELAY: Duration = Duration::from_secs(2);

/// Comparing a large overlay with the kernel takes some 10 MB for a moment, which glibc
/// would keep for as long as netd runs. This returns them a little later, once for many
/// comparisons in a row.
pub(super) fn trim_later(objects: usize) {
    static PENDING: AtomicBool = AtomicBool::new(false);
    if objects < MIN_OBJECTS || PENDING.swap(true, Ordering::Relaxed) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(TRIM_DELAY).await;
        PENDING.store(false, Ordering::Relaxed);
        // It takes some milliseconds. A failure is harmless.
        drop(tokio::task::spawn_blocking(trim).await);
    });
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) has no preconditions and can be called by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators return memory by themselves, or can't be asked to.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
