//! The Unix socket that netd calls.

use std::{
    io,
    os::unix::{fs::FileTypeExt as _, net::UnixStream as StdStream},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};

/// Read and write for the owner only.
const MODE: u32 = 0o600;

/// The directory in which it is made; netd's is another.
const PRIVATE: &str = "t";

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process answers on it.
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
    /// The system refused.
    #[error("{path}: {source}")]
    Refused {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

/// Makes the socket.
///
/// # Errors
/// See [`ListenError`].
pub fn open(path: &Path) -> Result<UnixListener, ListenError> {
    let refused = |source| ListenError::Refused { path: path.to_owned(), source };
    clear(path)?;
    let listener = netd_api::socket::listen(path, MODE, PRIVATE, |_| Ok(())).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    UnixListener::from_std(listener).map_err(refused)
}

/// Refuses to take a path from a living process, or from something that is no socket.
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

/// Connections of this process's own user and of root; others are closed, whatever the
/// socket's mode has become.
pub fn accept(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    let own = nix::unistd::geteuid().as_raw();
    UnixListenerStream::new(listener).filter_map(move |accepted| {
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => return Some(Err(error)),
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == 0 || peer.uid() == own => Some(Ok(stream)),
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "rejected a connection: only root and this process's own user may connect"
                );
                None
            }
            Err(error) => {
                tracing::warn!(%error, "the peer's credentials can't be read");
                None
            }
        }
    })
}
