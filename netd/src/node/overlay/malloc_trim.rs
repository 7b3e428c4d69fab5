//! Memory that a large comparison leaves behind.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

/// From so many objects on it is worth it.
const LARGE: usize = 2000;
/// What follows on a start (the memory on disk, the watch) is over by then.
const LATER: Duration = Duration::from_secs(2);

/// Comparing a large overlay with the kernel takes some 10 MB for a moment, which glibc
/// would keep for as long as netd runs: gives them back a little later, once for many
/// comparisons in a row.
pub(super) fn trim_later(objects: usize) {
    static WAITS: AtomicBool = AtomicBool::new(false);
    if objects < LARGE || WAITS.swap(true, Ordering::Relaxed) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(LATER).await;
        WAITS.store(false, Ordering::Relaxed);
        // Takes some milliseconds. That it could not be done, nobody has to know.
        drop(tokio::task::spawn_blocking(trim).await);
    });
}

#[cfg(target_env = "gnu")]
fn trim() {
    // SAFETY: malloc_trim(3) has no preconditions and can be called by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Others give it back by themselves, or can't be asked to.
#[cfg(not(target_env = "gnu"))]
fn trim() {}
