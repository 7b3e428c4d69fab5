//! The file under redb.

use std::fs::File;

use redb::{StorageBackend, backends::FileBackend};

type Result<T> = std::result::Result<T, std::io::Error>;

/// A file that is synced.
///
/// Locks are left to [`super::lock::Lock`]: redb does without where a backend has none.
#[derive(Debug)]
pub(super) struct PageFile {
    inner: FileBackend,
}

impl PageFile {
    pub(super) fn new(file: File) -> std::result::Result<Self, redb::DatabaseError> {
        Ok(Self { inner: FileBackend::new(file)? })
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
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.inner.write(offset, data)
    }
}
