//! The gRPC socket's connections, before HTTP/2: who calls, and what clients get wrong.

mod authority_fix;
mod connection;
pub(super) mod peer_cred;

use std::time::Duration;

use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};

use connection::Connection;
use peer_cred::Peer;

/// How long nothing is accepted after a failure.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever; each one's peer goes to the log.
///
/// # Errors
/// The system's.
pub(crate) fn accept(
    listener: std::os::unix::net::UnixListener,
) -> std::io::Result<impl Stream<Item = std::io::Result<Connection>>> {
    let connections = UnixListenerStream::new(UnixListener::from_std(listener)?);
    Ok(connections.then(|accepted| async move {
        if let Err(error) = &accepted {
            tracing::warn!(%error, "a connection can't be accepted");
            // Out of descriptors, say: to ask again at once would leave time for nothing else.
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        accepted.map(|stream| {
            let peer = Peer::of(&stream);
            Connection::new(stream, peer)
        })
    }))
}
