//! The Unix sockets, gRPC's and the hooks': systemd's if it hands them over, else our own.

use std::{
    os::unix::{
        fs::FileTypeExt as _,
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Group};

use crate::config::{Config, SocketGroup};

/// gRPC's: root and the group.
const GRPC_MODE: u32 = 0o660;
/// The hooks': root. A runtime calls them.
const HOOK_MODE: u32 = 0o600;
/// The directory in which they are made; netd-tunnel's is another.
const PRIVATE: &str = "n";
/// `FileDescriptorName=` of the hooks' socket unit; any other name is gRPC's.
const HOOK_NAME: &str = "hook";

/// Both, not blocking.
#[derive(Debug)]
pub(crate) struct Listeners {
    /// See [`crate::api`].
    pub grpc: StdListener,
    /// See [`crate::api::hook`].
    pub hooks: StdListener,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
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

/// Opens the sockets of the configuration, or takes systemd's. A systemd that was not told
/// of the hooks' socket yet hands over one.
///
/// # Errors
/// See [`ListenError`].
pub(crate) fn open(config: &Config) -> Result<Listeners, ListenError> {
    let mut handed = listenfd::ListenFd::from_env();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let (grpc, hook) = places(&names, handed.len());
    let group = config.socket_group.as_ref();
    let hook_path = hook_path(&config.socket);
    Ok(Listeners {
        grpc: taken(&mut handed, grpc, &config.socket, || bind(&config.socket, GRPC_MODE, group))?,
        hooks: taken(&mut handed, hook, &hook_path, || bind(&hook_path, HOOK_MODE, None))?,
    })
}

/// The hooks' socket: beside gRPC's, where the plugin looks for it.
fn hook_path(grpc: &Path) -> PathBuf {
    netd_api::hook::socket_beside(&grpc.to_string_lossy()).into()
}

/// Which of the descriptors handed over is gRPC's, which the hooks'. Without names there is
/// gRPC's alone (sd_listen_fds(3)).
fn places(names: &str, count: usize) -> (Option<usize>, Option<usize>) {
    let names: Vec<&str> = names.split(':').collect();
    let is_hook = |at: &usize| names.get(*at) == Some(&HOOK_NAME);
    ((0..count).find(|at| !is_hook(at)), (0..count).find(is_hook))
}

fn taken(
    handed: &mut listenfd::ListenFd,
    place: Option<usize>,
    path: &Path,
    bind: impl FnOnce() -> Result<StdListener, ListenError>,
) -> Result<StdListener, ListenError> {
    let refused =
        |e: std::io::Error| ListenError::Refused { path: path.to_owned(), reason: e.to_string() };
    let found = place.map(|at| handed.take_unix_listener(at)).transpose().map_err(refused)?;
    let listener = match found.flatten() {
        Some(listener) => listener,
        None => bind()?,
    };
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

fn bind(path: &Path, mode: u32, group: Option<&SocketGroup>) -> Result<StdListener, ListenError> {
    let refused = |e: &dyn std::fmt::Display| ListenError::Refused {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let gid = group.map(gid).transpose()?;
    clear(path)?;
    let owned = |fresh: &Path| match gid {
        Some(gid) => Ok(nix::unistd::chown(fresh, None, Some(gid))?),
        None => Ok(()),
    };
    netd_api::socket::listen(path, mode, PRIVATE, owned).map_err(|e| refused(&e))
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
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_living_socket_is_not_taken_and_a_dead_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netd.sock");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let first = bind(&path, GRPC_MODE, None).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert!(matches!(bind(&path, GRPC_MODE, None), Err(ListenError::InUse { .. })));
        drop(first);
        bind(&path, HOOK_MODE, None).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn handed_sockets_are_told_apart_by_name() {
        assert_eq!(places("", 0), (None, None));
        assert_eq!(places("", 1), (Some(0), None));
        assert_eq!(places("netd.socket", 1), (Some(0), None));
        assert_eq!(places("grpc:hook", 2), (Some(0), Some(1)));
        assert_eq!(places("hook:grpc", 2), (Some(1), Some(0)));
        assert_eq!(places("hook", 1), (None, Some(0)));
    }

    #[test]
    fn a_file_in_the_way_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("netd.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(bind(&path, HOOK_MODE, None), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        let group = SocketGroup::Name("no-such-group".into());
        assert!(matches!(bind(&path, GRPC_MODE, Some(&group)), Err(ListenError::NoGroup { .. })));
    }
}
