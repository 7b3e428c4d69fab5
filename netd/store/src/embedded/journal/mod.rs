//! The file of what is written for every pod: a journal, read as a whole once and then
//! only appended to, one `pwrite` a commit and no page of a tree touched.
//!
//! Nothing is synced: what `pwrite` has returned from is in the page cache and survives
//! SIGKILL, and after a crash of the machine the file is void anyway.
//!
//! Begins with [`MAGIC`] and the file's size, so that one that was cut short is known;
//! then come frames, each a [`CommitBatch`]. The first names the boot.

mod frame;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use prost::Message as _;

use self::frame::{OVERHEAD, frame, payloads};
use super::{
    error::{damaged, io_failed},
    file::{Content, RecordFile, Room, remove_if_there},
    record,
};
use crate::{Entry, Revision, StoreError, memory::Effect, rules::Class};

const MAGIC: [u8; 8] = *b"netdlog1";
/// Magic and size.
const START: usize = 16;
/// The file grows by so much, bytes; the new part is zeros. Also the least room that is kept.
const STEP: u64 = 64 << 10;
/// A file is rewritten when it exceeds twice its content by this many bytes.
const SLACK: u64 = 1 << 20;
/// Entries in a frame of a new file.
const CHUNK: usize = 64;

/// What changes at once.
#[derive(Clone, PartialEq, prost::Message)]
struct CommitBatch {
    #[prost(int64, tag = "1")]
    revision: Revision,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<Record>,
    /// Only in the first one.
    #[prost(string, tag = "3")]
    boot_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(string, tag = "1")]
    key: String,
    /// As [`record::encode`] lays it out; without it, the key is gone.
    #[prost(bytes = "vec", optional, tag = "2")]
    entry: Option<Vec<u8>>,
}

/// A journal of volatile keys.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    /// `None` after an error: what is in the file has to be found out first.
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    boot_id: String,
    /// Where the next frame goes.
    end: u64,
    /// The file's size: so much of the disk is its own.
    size: u64,
    /// About what its records take, bytes.
    live: u64,
    /// When `end` is past this, it is time for a new file.
    enough: u64,
}

impl Journal {
    /// Makes a file that holds `content` in the place of whatever is there: first under
    /// another name, so that a crash leaves either the old file or the whole new one.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; the old file is as it was.
    pub(super) fn make(path: &Path, content: Content) -> Result<Self, StoreError> {
        let Content { entries, revision, boot_id } = content;
        let entries = entries.into_iter().map(Arc::new);
        let open = replace(path, &boot_id, revision, entries)?;
        Ok(Self { path: path.to_owned(), open: Some(open) })
    }

    /// Opens the file and reads all of it.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it can't be read, written or trusted.
    pub(super) fn open(path: &Path) -> Result<(Self, Content), StoreError> {
        let mut this = Self { path: path.to_owned(), open: None };
        let content = this.reopen()?;
        Ok((this, content))
    }

    /// Whether most of the file is past: time for [`Journal::compact`].
    pub(super) fn is_overgrown(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.end > open.enough)
    }

    /// The records take so many bytes more, or less, than before.
    pub(super) fn note_growth(&mut self, bytes: i64) {
        if let Some(open) = &mut self.open {
            open.live = open.live.saturating_add_signed(bytes);
        }
    }

    /// Rewrites the file with `entries`, which are all that exist.
    ///
    /// # Errors
    /// [`StoreError::Failed`]; it goes on with the old file, which is not called overgrown
    /// before it has grown some more.
    pub(super) fn compact(
        &mut self,
        entries: impl Iterator<Item = Arc<Entry>>,
        revision: Revision,
    ) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.enough = open.end + SLACK;
        let boot_id = open.boot_id.clone();
        *open = replace(&self.path, &boot_id, revision, entries)?;
        Ok(())
    }
}

impl RecordFile for Journal {
    fn is_broken(&self) -> bool {
        self.open.is_none()
    }

    #[cfg(test)]
    fn break_off(&mut self) {
        self.open = None;
    }

    fn reopen(&mut self) -> Result<Content, StoreError> {
        self.open = None;
        let path = self.path.as_path();
        let io = |what: &'static str| move |e: io::Error| io_failed(path, what, &e);
        let bytes = fs::read(path).map_err(io("reading"))?;
        let content = read(&bytes);
        let (content, end) = content.map_err(|found| damaged(path, Class::Volatile, &found))?;
        let rest = bytes.get(end as usize..).unwrap_or_default();
        if rest.iter().any(|byte| *byte != 0) {
            tracing::info!(path = %path.display(), at = end,
                "the last record was not written to its end, so it was not reported; left out");
        }
        let file = OpenOptions::new().write(true).open(path).map_err(io("opening"))?;
        let size = bytes.len() as u64;
        let live = content.entries.iter().map(weight).sum();
        let boot_id = content.boot_id.clone();
        let mut open = Open { file, boot_id, end, size, live, enough: enough(live) };
        let written = end + rest.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1) as u64;
        open.clear(written).map_err(io("clearing what was not written to its end"))?;
        // Without it, attaches are refused when they come.
        let _ = open.make_room(Room::New, end);
        self.open = Some(open);
        Ok(content)
    }

    fn write(
        &mut self,
        effects: &[Effect],
        revision: Revision,
        room: Room,
    ) -> Result<(), StoreError> {
        let Some(open) = &mut self.open else {
            return Err(damaged(&self.path, Class::Volatile, "an earlier write failed"));
        };
        let changes = effects.iter().map(Record::from).collect();
        let batch = CommitBatch { revision, changes, boot_id: String::new() };
        let Err(error) = open.append(&batch, room) else { return Ok(()) };
        // What can't be taken back is found when the file is opened again.
        if open.clear(open.size).is_err() {
            self.open = None;
        }
        Err(io_failed(&self.path, "writing", &error))
    }
}

impl Open {
    fn append(&mut self, batch: &CommitBatch, room: Room) -> io::Result<()> {
        let frame = frame(&batch.encode_to_vec()).ok_or(io::ErrorKind::InvalidInput)?;
        let end = self.end + frame.len() as u64;
        self.make_room(room, end)?;
        self.file.write_all_at(&frame, self.end)?;
        self.end = end;
        Ok(())
    }

    /// Sees that the file reaches to `end`, and what is new also to what is kept behind it:
    /// room for a change and an end of every record, on a disk that others have filled.
    fn make_room(&mut self, room: Room, end: u64) -> io::Result<()> {
        let kept = match room {
            Room::New => STEP + 2 * self.live,
            Room::Kept => 0,
        };
        let wanted = end + kept;
        if wanted <= self.size { Ok(()) } else { self.grow(wanted.next_multiple_of(STEP)) }
    }

    /// First the file, then the note of its size: it is never shorter than that says. If there
    /// is not enough room, the file stays as it is and gives none away.
    fn grow(&mut self, size: u64) -> io::Result<()> {
        let (from, more) = (self.size.cast_signed(), (size - self.size).cast_signed());
        let grown = match fallocate(&self.file, FallocateFlags::empty(), from, more) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.write_zeros(self.size, size),
            allocated => allocated.map_err(io::Error::from),
        };
        if let Err(error) = grown {
            self.file.set_len(self.size)?;
            return Err(error);
        }
        self.file.write_all_at(&size.to_le_bytes(), MAGIC.len() as u64)?;
        self.size = size;
        Ok(())
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let part = (to - at).min(STEP);
            self.file.write_all_at(&vec![0; part as usize], at)?;
            at += part;
        }
        Ok(())
    }

    /// Overwrites what is between the last frame and `to`. The file does not become shorter.
    fn clear(&self, to: u64) -> io::Result<()> {
        self.write_zeros(self.end, to)
    }
}

impl From<&Effect> for Record {
    fn from(effect: &Effect) -> Self {
        match effect {
            Effect::Put(entry) => {
                Self { key: entry.key.clone(), entry: Some(record::encode(entry)) }
            }
            Effect::Delete(key) => Self { key: key.clone(), entry: None },
        }
    }
}

fn fresh_of(path: &Path) -> PathBuf {
    path.with_extension("journal.new")
}

/// Removes what a process that was killed while it made the file at `path` has left.
///
/// # Errors
/// [`StoreError::Failed`].
pub(super) fn remove_leftover(path: &Path) -> Result<(), StoreError> {
    remove_if_there(&fresh_of(path), "removing a half-made file")
}

fn replace(
    path: &Path,
    boot_id: &str,
    revision: Revision,
    entries: impl Iterator<Item = Arc<Entry>>,
) -> Result<Open, StoreError> {
    let fresh = fresh_of(path);
    remove_leftover(path)?;
    let made = fill(&fresh, boot_id, revision, entries)
        .and_then(|open| fs::rename(&fresh, path).map(|()| open));
    made.map_err(|e| {
        // Best effort: it is removed at the next try anyway.
        let _ = fs::remove_file(&fresh);
        io_failed(&fresh, "making the file", &e)
    })
}

fn fill(
    path: &Path,
    boot_id: &str,
    revision: Revision,
    entries: impl Iterator<Item = Arc<Entry>>,
) -> io::Result<Open> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all_at(&MAGIC, 0)?;
    let boot = boot_id.to_owned();
    let (end, size) = (START as u64, 0);
    let mut open = Open { file, boot_id: boot.clone(), end, size, live: 0, enough: 0 };
    open.append(&CommitBatch { revision, changes: Vec::new(), boot_id: boot }, Room::Kept)?;
    let mut entries = entries.map(Effect::Put).peekable();
    while entries.peek().is_some() {
        let changes = entries.by_ref().take(CHUNK).map(|effect| Record::from(&effect)).collect();
        open.append(&CommitBatch { revision, changes, boot_id: String::new() }, Room::Kept)?;
    }
    open.enough = enough(open.end);
    open.live = open.end;
    // Without it, attaches are refused when they come.
    let _ = open.make_room(Room::New, open.end);
    Ok(open)
}

fn enough(live: u64) -> u64 {
    2 * live + SLACK
}

/// About what an entry takes, bytes.
pub(super) fn weight(entry: &Entry) -> u64 {
    (entry.key.len() + entry.value.len() + OVERHEAD + size_of::<[u64; 4]>()) as u64
}

/// The content, and where the last frame ends; or what is wrong.
fn read(bytes: &[u8]) -> Result<(Content, u64), String> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(if bytes.is_empty() { "it is empty" } else { "it is cut short" }.to_owned());
    };
    let Some(size) = rest.first_chunk::<8>().filter(|_| *magic == MAGIC) else {
        return Err("it is no journal of netd's".to_owned());
    };
    if (bytes.len() as u64) < u64::from_le_bytes(*size) {
        return Err("it is cut short".to_owned());
    }
    let at = |at: usize| format!("at byte {at} is no record");
    let (payloads, end) = payloads(bytes, START).map_err(|damage| at(damage.0))?;
    let mut content: Option<Content> = None;
    let mut entries = std::collections::BTreeMap::new();
    let mut offset = START;
    for payload in payloads {
        let batch = CommitBatch::decode(payload).map_err(|_| at(offset))?;
        offset += payload.len() + OVERHEAD;
        let content = content.get_or_insert_with(|| Content {
            boot_id: batch.boot_id.clone(),
            ..Content::default()
        });
        content.revision = content.revision.max(batch.revision);
        for Record { key, entry } in batch.changes {
            match entry {
                None => drop(entries.remove(&key)),
                Some(bytes) => {
                    let entry = record::decode(&key, &bytes);
                    let entry = entry.ok_or_else(|| format!("the record of {key} is malformed"))?;
                    entries.insert(key, entry);
                }
            }
        }
    }
    let mut content = content.ok_or("its first record is missing")?;
    content.entries = entries.into_values().collect();
    Ok((content, end as u64))
}

#[cfg(feature = "fuzzing")]
/// For fuzzing: as a whole file, and as a record, whose checksum no fuzzer finds out.
pub fn fuzz(bytes: &[u8]) {
    let _ = read(bytes);
    let first = CommitBatch { revision: 1, changes: Vec::new(), boot_id: "boot".to_owned() };
    let frames = [first.encode_to_vec(), bytes.to_vec()];
    let frames: Vec<u8> = frames.iter().filter_map(|payload| frame(payload)).flatten().collect();
    let size = (START + frames.len()) as u64;
    let _ = read(&[&MAGIC, &size.to_le_bytes()[..], &frames].concat());
}
