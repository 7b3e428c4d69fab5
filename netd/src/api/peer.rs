//! Who is at the other end of the Unix socket: in the log, with all that a call did.

use std::{os::unix::net::UnixListener, time::Duration};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Request;

use super::{
    connection::Connection,
    socket::{Incoming, Socket},
};

/// How long nothing is accepted after a failure.
const PAUSE: Duration = Duration::from_millis(50);

/// A process, at the moment when it connected (unix(7), SO_PEERCRED).
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pid: i32,
    uid: u32,
    gid: u32,
}

/// Accepts connections for ever; each one's peer goes to the log.
///
/// # Errors
/// The system's.
pub fn accept(
    listener: UnixListener,
) -> std::io::Result<impl Stream<Item = std::io::Result<Connection>>> {
    let connections = Incoming::new(listener)?;
    let with_peer = |socket: Socket| {
        let peer = peer(&socket);
        Connection::new(socket, peer)
    };
    Ok(connections.then(move |socket| async move {
        if let Err(error) = &socket {
            tracing::warn!(%error, "a connection can't be accepted");
            // Out of descriptors, say: to ask again at once would leave time for nothing else.
            tokio::time::sleep(PAUSE).await;
        }
        socket.map(with_peer)
    }))
}

fn peer(socket: &Socket) -> Option<Peer> {
    let asked = socket.get_ref().and_then(|socket| Ok(getsockopt(socket, PeerCredentials)?));
    match asked {
        Ok(found) => {
            let peer = Peer { pid: found.pid(), uid: found.uid(), gid: found.gid() };
            tracing::debug!(pid = peer.pid, uid = peer.uid, gid = peer.gid, "connection");
            Some(peer)
        }
        Err(error) => {
            tracing::warn!(%error, "the peer's credentials can't be read");
            None
        }
    }
}

/// A span for a call that changes something: every line within says who asked for it.
pub fn span<T>(request: &Request<T>) -> tracing::Span {
    match request.extensions().get::<Option<Peer>>().copied().flatten() {
        Some(Peer { pid, uid, gid }) => tracing::info_span!("call", pid, uid, gid),
        None => tracing::info_span!("call"),
    }
}
