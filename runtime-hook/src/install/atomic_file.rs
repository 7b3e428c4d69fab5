//! Files that are replaced atomically.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use crate::error::HookError;

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileChange {
    Created(PathBuf),
    Replaced(PathBuf),
    /// Its content and mode were already right.
    Unchanged(PathBuf),
    Removed(PathBuf),
    /// It did not exist, so there was nothing to remove.
    Absent(PathBuf),
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(path) => write!(f, "created {}", path.display()),
            Self::Replaced(path) => write!(f, "replaced {}", path.display()),
            Self::Unchanged(path) => write!(f, "unchanged {}", path.display()),
            Self::Removed(path) => write!(f, "removed {}", path.display()),
            Self::Absent(path) => write!(f, "absent {}", path.display()),
        }
    }
}

/// Writes a file under a temporary name in the same directory, syncs it and renames it. A
/// runtime that watches the directory sees only the whole file, and a running plugin keeps its
/// old one. Creates the directory if it is missing.
///
/// # Errors
/// [`HookError::Io`] with the path; the file is unchanged then.
pub(super) fn write(
    dir: &Path,
    name: &str,
    content: &[u8],
    mode: u32,
) -> Result<FileChange, HookError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|e| failed("create", dir, &e))?;
    let path = dir.join(name);
    let old = read(&path)?;
    let same = old.as_deref() == Some(content);
    if same && mode_of(&path)? == mode {
        return Ok(FileChange::Unchanged(path));
    }
    // Runtimes ignore a name with a leading dot and this extension.
    let temporary = dir.join(format!(".{name}.{}.tmp", process::id()));
    let written = write_synced(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    if let Err(error) = written {
        // The file no longer exists under this name if only the last step failed.
        drop(fs::remove_file(&temporary));
        return Err(failed("write", &path, &error));
    }
    Ok(if old.is_some() { FileChange::Replaced(path) } else { FileChange::Created(path) })
}

/// Removes a file. A missing file is not an error.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub(super) fn remove(dir: &Path, name: &str) -> Result<FileChange, HookError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Ok(()) => Ok(FileChange::Removed(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(FileChange::Absent(path)),
        Err(e) => Err(failed("remove", &path, &e)),
    }
}

/// The content of a file, if it exists.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, HookError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path, &e)),
    }
}

fn mode_of(path: &Path) -> Result<u32, HookError> {
    let metadata = fs::metadata(path).map_err(|e| failed("read", path, &e))?;
    Ok(metadata.permissions().mode() & 0o7777)
}

fn write_synced(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // A process with the same id may have crashed and left it.
    drop(fs::remove_file(path));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The umask has changed the mode that open() set.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> HookError {
    HookError::io(format!("can't {verb} {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_twice_changes_nothing_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a/b");
        let write = |content: &[u8]| write(&sub, "x", content, 0o755).unwrap();
        let path = sub.join("x");
        assert_eq!(write(b"1"), FileChange::Created(path.clone()));
        assert_eq!(write(b"1"), FileChange::Unchanged(path.clone()));
        assert_eq!(write(b"2"), FileChange::Replaced(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(mode_of(&path).unwrap(), 0o755);
        assert_eq!(fs::read_dir(&sub).unwrap().count(), 1);
        assert_eq!(remove(&sub, "x").unwrap(), FileChange::Removed(path.clone()));
        assert_eq!(remove(&sub, "x").unwrap(), FileChange::Absent(path));
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        fs::write(dir.path().join("x/in-the-way"), "").unwrap();
        assert!(write(dir.path(), "x", b"1", 0o644).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
