//! The gRPC socket's connections, before HTTP/2: who calls, and what clients get wrong.

mod admission;
mod authority_fix;
mod call_limits;
mod connection;
pub(super) mod field_count;
pub(super) mod peer_cred;

use std::{os::fd::AsRawFd as _, time::Duration};

use tokio::net::UnixListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};

pub(super) use admission::descriptors;
use admission::{Admission, Limits};
pub(crate) use call_limits::{CallLimits, MAX_REQUEST_BYTES};
use connection::Connection;
use peer_cred::Peer;

/// How long nothing is accepted after a failure.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections for ever, no more than [`admission`] says; each one's peer
/// goes to the log.
///
/// # Errors
/// The system's.
pub(crate) fn accept(
    listener: std::os::unix::net::UnixListener,
) -> std::io::Result<impl Stream<Item = std::io::Result<Connection>>> {
    let connections = UnixListenerStream::new(UnixListener::from_std(listener)?);
    let admission = Admission::new(Limits::of_this_process());
    Ok(connections.then(move |accepted| {
        let admission = admission.clone();
        async move {
            if let Err(error) = &accepted {
                tracing::warn!(%error, "a connection can't be accepted");
                // Out of descriptors, say: to ask again at once would leave time for nothing else.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            accepted.map(|stream| {
                let peer = Peer::of(&stream);
                // One whose peer can't be read counts as anybody's.
                let uid = peer.map_or(u32::MAX, |peer| if peer.is_root() { 0 } else { peer.uid() });
                let place = admission.admit(uid, stream.as_raw_fd());
                Connection::new(stream, peer, place)
            })
        }
    }))
}
