//! Files that appear whole or not at all.

use std::{
    fmt,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process,
};

use crate::error::HookError;

/// What was done to a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It was not there.
    Created(PathBuf),
    /// It was different.
    Replaced(PathBuf),
    /// It was as it has to be.
    Unchanged(PathBuf),
    /// It is gone.
    Removed(PathBuf),
    /// It was not there to be removed.
    Absent(PathBuf),
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created(path) => write!(f, "created {}", path.display()),
            Self::Replaced(path) => write!(f, "replaced {}", path.display()),
            Self::Unchanged(path) => write!(f, "unchanged {}", path.display()),
            Self::Removed(path) => write!(f, "removed {}", path.display()),
            Self::Absent(path) => write!(f, "not there {}", path.display()),
        }
    }
}

/// Writes a file under a temporary name in the same directory, syncs it and renames
/// it: a runtime that watches the directory sees the whole file, and a running plugin
/// keeps its old one. The directory is made if it is missing.
///
/// # Errors
/// [`HookError::Io`] with the path; then the file is as it was.
pub fn put(dir: &Path, name: &str, content: &[u8], mode: u32) -> Result<Placed, HookError> {
    fs::create_dir_all(dir).map_err(|e| failed("create", dir, &e))?;
    let path = dir.join(name);
    let old = existing(&path)?;
    let same = old.as_deref() == Some(content);
    if same && mode_of(&path)? == mode {
        return Ok(Placed::Unchanged(path));
    }
    // The leading dot and the ending keep runtimes from reading it.
    let temporary = dir.join(format!(".{name}.{}.tmp", process::id()));
    let written = write_synced(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, &path))
        .and_then(|()| File::open(dir)?.sync_all());
    if let Err(error) = written {
        // Not there any more if only the last step failed.
        drop(fs::remove_file(&temporary));
        return Err(failed("write", &path, &error));
    }
    Ok(if old.is_some() { Placed::Replaced(path) } else { Placed::Created(path) })
}

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub fn remove(dir: &Path, name: &str) -> Result<Placed, HookError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Ok(()) => Ok(Placed::Removed(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Placed::Absent(path)),
        Err(e) => Err(failed("remove", &path, &e)),
    }
}

/// The content of a file, if it is there.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub fn existing(path: &Path) -> Result<Option<Vec<u8>>, HookError> {
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
    // A leftover of a crashed process of the same id.
    drop(fs::remove_file(path));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    // The umask took part in the mode so far.
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
    fn putting_twice_changes_nothing_and_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let sub = dir.path().join("a/b");
        let put = |content: &[u8]| put(&sub, "x", content, 0o755).unwrap();
        let path = sub.join("x");
        assert_eq!(put(b"1"), Placed::Created(path.clone()));
        assert_eq!(put(b"1"), Placed::Unchanged(path.clone()));
        assert_eq!(put(b"2"), Placed::Replaced(path.clone()));
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(mode_of(&path).unwrap(), 0o755);
        assert_eq!(fs::read_dir(&sub).unwrap().count(), 1);
        assert_eq!(remove(&sub, "x").unwrap(), Placed::Removed(path.clone()));
        assert_eq!(remove(&sub, "x").unwrap(), Placed::Absent(path));
    }

    #[test]
    fn a_failed_put_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        fs::write(dir.path().join("x/in-the-way"), "").unwrap();
        assert!(put(dir.path(), "x", b"1", 0o644).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
