//! Keeps two netds from using one directory.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use super::error::io_failed;
use crate::StoreError;

/// Keeps other processes out of a store's file as long as it lives. The kernel
/// lets go of the lock when the process dies, however it does.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// By itself the lock would last as long as a child that was just forked, and has
    /// not executed its program yet, holds a copy of the descriptor.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "unlocking the store");
        }
    }
}

impl Lock {
    /// Makes `dir` (mode 0700) if need be and takes the lock file in it.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::Failed`] if the directory can't be written.
    pub(super) fn take(dir: &Path, name: &str) -> Result<Self, StoreError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|e| io_failed(dir, "making the directory", &e))?;
        let path = dir.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|e| io_failed(&path, "opening the lock file", &e))?;
        match try_for_a_while(&file) {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => {
                Err(StoreError::InUse { path: path.display().to_string() })
            }
            Err(TryLockError::Error(e)) => Err(io_failed(&path, "locking", &e)),
        }
    }
}

/// A program that was being started when its netd died holds netd's descriptors for a
/// moment, until its exec: no other netd, so it is waited for. Only at start.
#[allow(clippy::disallowed_methods)]
fn try_for_a_while(file: &File) -> Result<(), TryLockError> {
    const TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    file.try_lock()
}
