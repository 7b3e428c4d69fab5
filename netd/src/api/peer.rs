//! Who is at the other end of the Unix socket: in the log, for every connection.

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};

/// Accepts connections for ever; each one's peer goes to the log.
pub fn accept(listener: UnixListener) -> impl Stream<Item = std::io::Result<UnixStream>> {
    UnixListenerStream::new(listener).map(|accepted| {
        let stream = accepted?;
        match stream.peer_cred() {
            Ok(peer) => tracing::debug!(
                pid = peer.pid().unwrap_or(0),
                uid = peer.uid(),
                gid = peer.gid(),
                "connection"
            ),
            Err(error) => tracing::warn!(%error, "the peer's credentials can't be read"),
        }
        Ok(stream)
    })
}
