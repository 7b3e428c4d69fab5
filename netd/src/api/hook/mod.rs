//! The hooks' socket: ttrpc for processes that make a call or two and end, and a sandbox's
//! network namespace handed over as a descriptor.
//!
//! **Who may call.** Root. The socket has mode 0600, and each connection's SO_PEERCRED is
//! looked at. It is `hook.sock` in the directory of the gRPC socket, which stays complete:
//! an older plugin, people and long-lived fronts use that one.
//!
//! **What is on the wire.** ttrpc ([`netd_api::ttrpc`]) with the messages of `netd.v1` and
//! the statuses and details of the gRPC API: the calls end in the same handlers
//! ([`call`]). A call whose metadata say so ([`netd_api::hook::NETNS_KEY`]) comes with one
//! descriptor, sent with the first byte of its frame. The hook opened it in its own mount
//! and PID namespaces, in which the path that the runtime gave means what the runtime
//! meant; netd uses the descriptor and keeps the path for people to read.
//!
//! **Who owns which state.** This module owns the listener and the number of connections;
//! a [`connection`] owns its socket, and in [`requests`] what has come and is no whole
//! request yet: bytes and descriptors. A call owns its request and its descriptor until
//! the node has it. Nothing is shared between connections.
//!
//! **Limits.** [`limits::max_connections`] at a time (more wait in the socket's queue), one call
//! at a time on each (more wait in its buffer), 4 MiB a message, one descriptor a call;
//! [`limits::FRAME_TIMEOUT`] for a request to arrive whole and for its answer to be taken;
//! for a call the time that its caller gives, at most [`limits::MAX_CALL_TIME`]. A call that
//! changes something runs to its end though its caller goes away or its time is over.

mod call;
mod connection;
mod limits;
pub(crate) mod requests;
mod socket;

use std::{os::unix::net::UnixListener as StdListener, sync::Arc};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, watch},
};

use self::limits::max_connections;
use super::{
    Api,
    transport::{ACCEPT_PAUSE, peer_cred::Peer},
};
pub(super) use call::take_descriptor;

/// Serves the hooks until `stop` becomes true and the calls that are under way then are
/// answered.
///
/// # Errors
/// The system's, when the listener can't be watched.
pub(crate) async fn serve(
    api: Api,
    listener: StdListener,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let max_connections = max_connections();
    let places = Arc::new(Semaphore::new(max_connections as usize));
    loop {
        let (stream, place) = tokio::select! {
            next = next(&listener, &places) => next,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(peer) = admitted(&stream) else { continue };
        let (api, stop) = (api.clone(), stop.clone());
        tokio::spawn(async move {
            connection::serve(&api, stream, peer, stop).await;
            drop(place);
        });
    }
    // Each connection gives its place back when its last call is answered.
    let _all = places.acquire_many(max_connections).await;
    Ok(())
}

/// The next connection, once there is a place for it.
async fn next(
    listener: &UnixListener,
    places: &Arc<Semaphore>,
) -> (UnixStream, Option<tokio::sync::OwnedSemaphorePermit>) {
    // Never closed, so always there.
    let place = places.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a hook's connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admitted(stream: &UnixStream) -> Option<Peer> {
    let peer = Peer::of(stream)?;
    if !peer.is_root() {
        tracing::warn!("rejected a connection from uid {} to the hooks' socket", peer.uid());
        return None;
    }
    Some(peer)
}
