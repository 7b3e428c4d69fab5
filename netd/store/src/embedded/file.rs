//! A redb file: opened, read as a whole once, then only written. And what it has in common
//! with the journal.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    backend::PageFile,
    error::{damaged, io_failed, redb_failed},
    record,
};
use crate::{Entry, Revision, StoreError, memory::Effect, rules::Class};

const ENTRIES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("entries");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
/// Greatest revision that is not in an entry, because its last change deleted.
const REVISION: &str = "revision";
/// The boot in which the file was made.
const BOOT_ID: &str = "boot_id";
/// Pages kept in memory. Reads never reach the file, so only writing profits.
const CACHE: usize = 2 << 20;

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub entries: Vec<Entry>,
    pub revision: Revision,
    pub boot_id: String,
}

/// Which room on the disk a change may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// What is new: it leaves the room that is kept for what ends.
    New,
    /// What changes or removes something that is there: kept room too.
    Kept,
}

/// A file of records, as the writer needs it.
pub(super) trait RecordFile {
    /// Whether the last write failed, so that [`Self::reopen`] has to come first.
    fn is_broken(&self) -> bool;

    /// As after a failed write.
    #[cfg(test)]
    fn break_off(&mut self);

    /// Opens the file again and returns its content.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it can't be read, written or trusted.
    fn reopen(&mut self) -> Result<Content, StoreError>;

    /// Makes all changes or none. After an error the file may count as broken.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    fn write(
        &mut self,
        effects: &[Effect],
        revision: Revision,
        room: Room,
    ) -> Result<(), StoreError>;
}

/// A redb file whose keys are of one class.
#[derive(Debug)]
pub(super) struct KvFile {
    path: PathBuf,
    class: Class,
    /// `None` after an error: redb refuses every use of a database that had an I/O
    /// error until it is opened again.
    db: Option<Database>,
}

impl KvFile {
    /// Makes a new, empty file in the place of whatever is there: first under
    /// another name, so that a crash leaves either the old file or the whole new one.
    pub(super) fn make(
        path: &Path,
        class: Class,
        boot_id: &str,
        at: Revision,
    ) -> Result<(), StoreError> {
        let fresh = path.with_extension("redb.new");
        let io = |what: &'static str| move |e: std::io::Error| io_failed(path, what, &e);
        remove_if_there(&fresh, "removing a half-made file")?;
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create_new(true).mode(0o600).open(&fresh);
        let file = file.map_err(io("making the file"))?;
        let made = fill_new(file, boot_id, at);
        if let Err(err) = made {
            // Best effort: the half-made file is removed at the next try anyway.
            let _ = fs::remove_file(&fresh);
            return Err(redb_failed(path, class, err));
        }
        fs::rename(&fresh, path).map_err(io("putting the new file in place"))?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        let dir = File::open(dir).map_err(io("opening the directory"))?;
        dir.sync_all().map_err(io("syncing the directory"))
    }

    /// Opens the file and reads all of it. Every page's checksum is verified.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it can't be read, written or trusted.
    pub(super) fn open(path: &Path, class: Class) -> Result<(Self, Content), StoreError> {
        let mut this = Self { path: path.to_owned(), class, db: None };
        let content = this.reopen()?;
        Ok((this, content))
    }
}

impl RecordFile for KvFile {
    fn is_broken(&self) -> bool {
        self.db.is_none()
    }

    #[cfg(test)]
    fn break_off(&mut self) {
        self.db = None;
    }

    fn reopen(&mut self) -> Result<Content, StoreError> {
        self.db = None;
        let file = OpenOptions::new().read(true).write(true).open(&self.path);
        let file = file.map_err(|e| io_failed(&self.path, "opening", &e))?;
        let len = file.metadata().map_err(|e| io_failed(&self.path, "opening", &e))?.len();
        if len == 0 {
            // redb would take it for a new database, and all networks would be gone.
            return Err(damaged(&self.path, self.class, "it is empty"));
        }
        // With debug assertions on, redb asserts where it otherwise reports damage.
        let opened = catch_unwind(AssertUnwindSafe(|| open_and_read(file)));
        match opened {
            Ok(Ok((db, Some(content)))) => {
                self.db = Some(db);
                Ok(content)
            }
            Ok(Ok((_, None))) => Err(damaged(&self.path, self.class, "a record is malformed")),
            Ok(Err(err)) => Err(redb_failed(&self.path, self.class, err)),
            Err(_) => Err(damaged(&self.path, self.class, "its structure is inconsistent")),
        }
    }

    /// redb keeps no room for itself.
    fn write(
        &mut self,
        effects: &[Effect],
        revision: Revision,
        _room: Room,
    ) -> Result<(), StoreError> {
        let Some(db) = &self.db else {
            return Err(damaged(&self.path, self.class, "an earlier write failed"));
        };
        let done = write(db, effects, revision);
        done.map_err(|err| {
            self.db = None;
            redb_failed(&self.path, self.class, err)
        })
    }
}

/// Removes a file; a missing one is fine. `what`: why, for the error.
///
/// # Errors
/// [`StoreError::Failed`].
pub(super) fn remove_if_there(path: &Path, what: &str) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_failed(path, what, &e)),
        _ => Ok(()),
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE).set_check_integrity_on_open(true);
    builder
}

fn fill_new(file: File, boot_id: &str, at: Revision) -> Result<(), redb::Error> {
    let db = builder().create_with_backend(PageFile::new(file)?)?;
    let txn = db.begin_write()?;
    {
        let mut meta = txn.open_table(META)?;
        meta.insert(REVISION, at.to_le_bytes().as_slice())?;
        meta.insert(BOOT_ID, boot_id.as_bytes())?;
        txn.open_table(ENTRIES)?;
    }
    txn.commit()?;
    Ok(db.close()?)
}

/// The content is `None` if a record can't be read.
fn open_and_read(file: File) -> Result<(Database, Option<Content>), redb::Error> {
    let db = builder().create_with_backend(PageFile::new(file)?)?;
    let content = read(&db)?;
    Ok((db, content))
}

fn read(db: &Database) -> Result<Option<Content>, redb::Error> {
    let txn = db.begin_read()?;
    let meta = txn.open_table(META)?;
    let revision = meta.get(REVISION)?.and_then(|v| Some(record::split_number(v.value())?.0));
    let boot_id = meta.get(BOOT_ID)?.and_then(|v| String::from_utf8(v.value().to_vec()).ok());
    let (Some(revision), Some(boot_id)) = (revision, boot_id) else { return Ok(None) };
    let mut content = Content { entries: vec![], revision, boot_id };
    for row in txn.open_table(ENTRIES)?.iter()? {
        let (key, value) = row?;
        let Some(entry) = record::decode(key.value(), value.value()) else { return Ok(None) };
        content.revision = content.revision.max(entry.mod_revision);
        content.entries.push(entry);
    }
    Ok(Some(content))
}

fn write(db: &Database, effects: &[Effect], revision: Revision) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(Durability::Immediate)?;
    let mut put = false;
    {
        let mut table = txn.open_table(ENTRIES)?;
        for effect in effects {
            match effect {
                Effect::Put(entry) => {
                    put |= entry.mod_revision == revision;
                    table.insert(entry.key.as_str(), record::encode(entry).as_slice())?;
                }
                Effect::Delete(key) => drop(table.remove(key.as_str())?),
            }
        }
    }
    // An entry that was put carries the revision: one page less to write.
    if !put {
        txn.open_table(META)?.insert(REVISION, revision.to_le_bytes().as_slice())?;
    }
    Ok(txn.commit()?)
}
