//! What went wrong with a file, and what to do about it.

use std::{io, path::Path};

use crate::{StoreError, rules::Class};

/// An I/O error at `path`.
pub(super) fn io_failed(path: &Path, what: &str, err: &io::Error) -> StoreError {
    failed(path, format!("{what}: {err}; {}", advice(err)))
}

/// Any error of redb at `path`, whose keys are of `class`.
pub(super) fn redb_failed(path: &Path, class: Class, err: redb::Error) -> StoreError {
    match err {
        // InvalidData is how redb says that the file is not one of its own.
        redb::Error::Io(err) if err.kind() != io::ErrorKind::InvalidData => {
            io_failed(path, "reading or writing", &err)
        }
        other => damaged(path, class, &other.to_string()),
    }
}

/// The file at `path` can't be trusted.
pub(super) fn damaged(path: &Path, class: Class, found: &str) -> StoreError {
    let remedy = match class {
        Class::Durable => {
            "it holds the networks: stop netd, put a backup in its place, or move it away, start netd and create the networks again"
        }
        Class::Volatile => {
            "it holds the endpoints of the running pods: drain the node, stop netd, move the file away and start netd; right after a reboot there is nothing to drain"
        }
    };
    failed(path, format!("the file is damaged ({found}); {remedy}"))
}

fn failed(path: &Path, reason: String) -> StoreError {
    StoreError::Failed { path: path.display().to_string(), reason }
}

fn advice(err: &io::Error) -> &'static str {
    use io::ErrorKind::{
        FileTooLarge, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    match err.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            "free some space; nothing was changed, and netd goes on by itself then"
        }
        ReadOnlyFilesystem | PermissionDenied => {
            "make it writable for netd, or choose another directory"
        }
        NotFound => "make the directory, or choose another one",
        _ => "look for the disk's errors in the kernel's log (dmesg)",
    }
}
