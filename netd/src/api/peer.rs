//! Who is at the other end of the Unix socket: in the log, with all that a call did.

use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tonic::{Request, transport::server::UdsConnectInfo};

use super::connection::Connection;

/// Accepts connections for ever; each one's peer goes to the log.
pub fn accept(listener: UnixListener) -> impl Stream<Item = std::io::Result<Connection>> {
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
        Ok(Connection::new(stream))
    })
}

/// A span for a call that changes something: every line within says who asked for it.
/// Credentials are those of the moment when the peer connected (unix(7), SO_PEERCRED).
pub fn span<T>(request: &Request<T>) -> tracing::Span {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
    match peer {
        Some(peer) => tracing::info_span!(
            "call",
            pid = peer.pid().unwrap_or(0),
            uid = peer.uid(),
            gid = peer.gid()
        ),
        None => tracing::info_span!("call"),
    }
}
