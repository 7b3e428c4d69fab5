//! Configurations of other plugins that sort before netd's: moved aside under a name that no
//! runtime reads, and put back when netd's goes.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::error::HookError;

/// What is added to the name of a file that is out of the way.
const SUFFIX: &str = ".netd-displaced";

/// What was done to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Move {
    Displaced(PathBuf),
    PutBack(PathBuf),
    /// There is another one of that name by now.
    Kept(PathBuf),
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Displaced(path) => {
                write!(f, "displaced {} (uninstall puts it back)", path.display())
            }
            Self::PutBack(path) => write!(f, "put back {}", path.display()),
            Self::Kept(path) => write!(
                f,
                "kept {}{SUFFIX}: there is another {} by now",
                path.display(),
                path.display()
            ),
        }
    }
}

/// Moves a configuration aside. One of the same name that was moved before goes: this one was
/// written later.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub(super) fn displace(path: &Path) -> Result<Move, HookError> {
    fs::rename(path, aside(path))
        .map_err(|e| HookError::io(format!("can't move {} aside", path.display()), e))?;
    Ok(Move::Displaced(path.to_owned()))
}

/// Puts back all that was moved aside in a directory, which need not be there.
///
/// # Errors
/// [`HookError::Io`] with the path.
pub(super) fn put_back(dir: &Path) -> Result<Vec<Move>, HookError> {
    let failed = |e| HookError::io(format!("can't list {}", dir.display()), e);
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed)?,
    };
    let mut done = vec![];
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let text = path.to_string_lossy();
        let Some(original) = text.strip_suffix(SUFFIX).map(PathBuf::from) else { continue };
        if original.exists() {
            done.push(Move::Kept(original));
            continue;
        }
        fs::rename(&path, &original)
            .map_err(|e| HookError::io(format!("can't put {} back", original.display()), e))?;
        done.push(Move::PutBack(original));
    }
    done.sort_by_key(|moved| moved.to_string());
    Ok(done)
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_displaced_comes_back_unless_it_was_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let [flannel, other] = ["10-flannel.conflist", "05-other.conf"].map(|n| dir.path().join(n));
        for (path, text) in [(&flannel, "flannel"), (&other, "old")] {
            fs::write(path, text).unwrap();
            assert_eq!(displace(path).unwrap(), Move::Displaced(path.clone()));
            assert!(!path.exists());
        }
        fs::write(&other, "new").unwrap();
        let done = put_back(dir.path()).unwrap();
        assert_eq!(done, [Move::Kept(other.clone()), Move::PutBack(flannel.clone())]);
        assert_eq!(fs::read_to_string(&flannel).unwrap(), "flannel");
        assert_eq!(fs::read_to_string(&other).unwrap(), "new");
        assert!(put_back(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
