//! The file under redb.

use std::fs::File;

use redb::{StorageBackend, backends::FileBackend};

use crate::store::rules::Class;

type Result<T> = std::result::Result<T, std::io::Error>;

/// A file that is synced, or not.
///
/// redb orders its writes with `sync_data`. Against a crash of the *process* that is
/// not needed: what `pwrite` has returned from is in the page cache, survives
/// SIGKILL, and is seen in the order in which it was written. Only a crash of the
/// *machine* loses or reorders it, and volatile files are void after that anyway.
/// So for them a commit costs no disk access, and keeps redb's atomicity.
///
/// Locks are left to [`super::lock::Lock`]: redb does without where a backend has none.
#[derive(Debug)]
pub(super) struct PageFile {
    inner: FileBackend,
    class: Class,
}

impl PageFile {
    pub fn new(file: File, class: Class) -> std::result::Result<Self, redb::DatabaseError> {
        Ok(Self { inner: FileBackend::new(file)?, class })
    }
}

impl StorageBackend for PageFile {
    fn len(&self) -> Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> Result<()> {
        match self.class {
            Class::Durable => self.inner.sync_data(),
            Class::Volatile => Ok(()),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.inner.write(offset, data)
    }
}
