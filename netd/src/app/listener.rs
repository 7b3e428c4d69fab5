//! The API's Unix socket: systemd's if it hands one over, else our own.

use std::{
    io::ErrorKind,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group};

use crate::config::{Config, SocketGroup};

/// Root and group; nobody else.
const MODE: u32 = 0o660;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another netd answers on it.
    #[error("{path}: another process is listening there; stop it or choose another socket")]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in the way.
    #[error("{path} exists and is not a socket; remove it or choose another socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// No such group.
    #[error("socket_group: there is no group \"{group}\"")]
    NoGroup {
        /// As configured.
        group: String,
    },
    /// The system refused.
    #[error("{path}: {reason}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        reason: String,
    },
}

/// Opens the socket of the configuration, or takes systemd's; does not block.
///
/// # Errors
/// See [`ListenError`].
pub fn open(config: &Config) -> Result<StdListener, ListenError> {
    let refused = |e: &dyn std::fmt::Display| ListenError::Refused {
        path: config.socket.clone(),
        reason: e.to_string(),
    };
    let handed = listenfd::ListenFd::from_env().take_unix_listener(0);
    let listener = match handed.map_err(|e| refused(&e))? {
        Some(listener) => listener,
        None => bind(&config.socket, config.socket_group.as_ref())?,
    };
    listener.set_nonblocking(true).map_err(|e| refused(&e))?;
    Ok(listener)
}

fn bind(path: &Path, group: Option<&SocketGroup>) -> Result<StdListener, ListenError> {
    let refused = |e: &dyn std::fmt::Display| ListenError::Refused {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let gid = group.map(gid).transpose()?;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).map_err(|e| refused(&e))?;
    }
    clear(path)?;
    // Bound under another name and moved when its mode is right: at no moment can
    // anyone else connect, and nobody finds it before it listens.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(&e)),
        _ => {}
    }
    let listener = StdListener::bind(&fresh).map_err(|e| refused(&e))?;
    let mode = std::fs::Permissions::from_mode(MODE);
    std::fs::set_permissions(&fresh, mode).map_err(|e| refused(&e))?;
    if let Some(gid) = gid {
        nix::unistd::chown(&fresh, None, Some(gid)).map_err(|e| refused(&e))?;
    }
    std::fs::rename(&fresh, path).map_err(|e| refused(&e))?;
    Ok(listener)
}

/// Refuses to take a path from a living netd, or from something that is no socket.
fn clear(path: &Path) -> Result<(), ListenError> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(()) };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket { path: path.to_owned() });
    }
    match StdStream::connect(path) {
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn gid(group: &SocketGroup) -> Result<Gid, ListenError> {
    match group {
        SocketGroup::Gid(gid) => Ok(Gid::from_raw(*gid)),
        SocketGroup::Name(name) => match Group::from_name(name) {
            Ok(Some(found)) => Ok(found.gid),
            _ => Err(ListenError::NoGroup { group: name.clone() }),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_living_socket_is_not_taken_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netd.sock");
        let first = bind(&path, None).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert!(matches!(bind(&path, None), Err(ListenError::InUse { .. })));
        drop(first);
        bind(&path, None).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netd.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path, None), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        let group = SocketGroup::Name("no-such-group".into());
        assert!(matches!(bind(&path, Some(&group)), Err(ListenError::NoGroup { .. })));
    }
}
