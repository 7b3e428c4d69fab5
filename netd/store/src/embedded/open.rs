//! Opening: lock, make or read the files, drop what did not outlive the last run.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use super::{
    boot_marker::BootMarker,
    error::io_failed,
    file::{Content, KvFile, remove_if_there},
    journal::{Journal, remove_leftover},
    lock::Lock,
    writer::Writer,
};
use crate::{
    Revision, StoreError,
    memory::{HistoryLimit, Memory},
    rules::Class,
};

/// Where the kernel says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Each boot after the first begins at the next multiple. Volatile changes are not
/// synced, so after a power cut the last revision is unknown; 2^40 changes
/// in one boot are out of reach, and 2^23 boots are too.
const BOOT_STEP: Revision = 1 << 40;

/// Where the embedded store keeps its files, and for which boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Directory of `networks.redb`; has to outlive a reboot.
    pub state_dir: PathBuf,
    /// Directory of `endpoints.journal`; best on a tmpfs, e.g. `/run/netd`.
    pub run_dir: PathBuf,
    /// Identifies the boot: endpoints of another boot are void.
    pub boot_id: String,
    /// How far back a watch can begin.
    pub history: HistoryLimit,
}

impl EmbeddedOptions {
    /// Options for the running kernel's boot and the default history.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when /proc can't be read.
    pub fn of_this_boot(
        state_dir: impl Into<PathBuf>,
        run_dir: impl Into<PathBuf>,
    ) -> Result<Self, StoreError> {
        let boot_id = std::fs::read_to_string(BOOT_ID)
            .map_err(|e| io_failed(Path::new(BOOT_ID), "reading the boot id", &e))?;
        Ok(Self {
            state_dir: state_dir.into(),
            run_dir: run_dir.into(),
            boot_id: boot_id.trim().to_owned(),
            history: HistoryLimit::default(),
        })
    }
}

/// Opens both files.
pub(super) fn open(options: &EmbeddedOptions) -> Result<Writer, StoreError> {
    let locks = [
        Lock::take(&options.state_dir, "networks.lock")?,
        Lock::take(&options.run_dir, "endpoints.lock")?,
    ];
    let (durable, networks) = open_durable(&options.state_dir.join("networks.redb"))?;
    let path = options.run_dir.join("endpoints.journal");
    let (volatile, endpoints) = open_volatile(&path, &options.boot_id, networks.revision)?;

    let revision = networks.revision.max(endpoints.revision);
    let entries: Vec<_> = networks.entries.into_iter().chain(endpoints.entries).collect();
    let memory = Arc::new(RwLock::new(Memory::new(entries, revision, options.history)));
    Ok(Writer {
        durable,
        volatile,
        memory,
        published: tokio::sync::watch::Sender::new(revision),
        revision,
        _locks: locks,
    })
}

fn open_durable(path: &Path) -> Result<(KvFile, Content), StoreError> {
    if is_missing(path)? {
        KvFile::make(path, Class::Durable, "", 0)?;
    }
    KvFile::open(path, Class::Durable)
}

fn open_volatile(
    path: &Path,
    boot_id: &str,
    durable: Revision,
) -> Result<(Journal, Content), StoreError> {
    let marker = BootMarker::read(path);
    let past = marker.as_ref().map_or(durable, |marker| marker.base.max(durable));
    remove_leftover(path)?;
    import(path, boot_id)?;
    if is_missing(path)? {
        let at = if past == 0 && marker.is_none() { 0 } else { next_boot(past) };
        return make_volatile(path, boot_id, at);
    }
    match Journal::open(path) {
        Ok((file, content)) if content.boot_id == boot_id => {
            if marker.is_none_or(|marker| marker.boot_id != boot_id) {
                BootMarker { boot_id: boot_id.to_owned(), base: content.revision }.write(path)?;
            }
            Ok((file, content))
        }
        Ok((_, content)) => {
            tracing::info!(path = %path.display(), "the machine was rebooted: discarding the endpoints of the boot before");
            make_volatile(path, boot_id, next_boot(past.max(content.revision)))
        }
        Err(error) if marker.is_some_and(|marker| marker.boot_id != boot_id) => {
            // It is not synced, so this is how a power cut may leave it.
            tracing::warn!(%error, "discarding the damaged volatile store after a reboot");
            make_volatile(path, boot_id, next_boot(past))
        }
        Err(error) => Err(error),
    }
}

/// Takes over what a netd before the journal left in this boot: endpoints outlive an upgrade.
fn import(path: &Path, boot_id: &str) -> Result<(), StoreError> {
    let old = path.with_extension("redb");
    if is_missing(&old)? {
        return Ok(());
    }
    // Of another boot, it may be damaged.
    if BootMarker::read(path).is_none_or(|marker| marker.boot_id == boot_id) {
        let (_, content) = KvFile::open(&old, Class::Volatile)?;
        if content.boot_id == boot_id && is_newer(&content, path)? {
            let records = content.entries.len();
            Journal::make(path, content)?;
            tracing::info!(path = %old.display(), records, "took over the records of an earlier netd");
        }
    }
    remove_if_there(&old, "removing an earlier netd's file")
}

/// Whether the journal is missing or older: an older netd ran after it was written. (One
/// that was killed between taking over and removing left the same revision.)
fn is_newer(old: &Content, path: &Path) -> Result<bool, StoreError> {
    if is_missing(path)? {
        return Ok(true);
    }
    let (_, journal) = Journal::open(path)?;
    Ok(journal.boot_id != old.boot_id || journal.revision < old.revision)
}

/// The old file goes first: at no moment does a damaged one lie beside a marker of this boot.
fn make_volatile(
    path: &Path,
    boot_id: &str,
    at: Revision,
) -> Result<(Journal, Content), StoreError> {
    remove_if_there(path, "removing the file of another boot")?;
    BootMarker { boot_id: boot_id.to_owned(), base: at }.write(path)?;
    let boot_id = boot_id.to_owned();
    let content = || Content { entries: Vec::new(), revision: at, boot_id: boot_id.clone() };
    Ok((Journal::make(path, content())?, content()))
}

fn next_boot(past: Revision) -> Revision {
    (past / BOOT_STEP + 1).saturating_mul(BOOT_STEP)
}

fn is_missing(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map(|there| !there).map_err(|e| io_failed(path, "looking for it", &e))
}
