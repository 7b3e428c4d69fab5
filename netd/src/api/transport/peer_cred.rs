//! Who is at the other end of a Unix socket: in the log, with all that a call did.

use std::os::fd::AsFd;

use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tonic::Request;

/// A process, at the moment when it connected (unix(7), SO_PEERCRED).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pid: i32,
    uid: u32,
    gid: u32,
}

impl Peer {
    /// The peer of a connected socket; `None`, with a warning in the log, if it can't be read.
    pub(crate) fn of(socket: &impl AsFd) -> Option<Self> {
        match getsockopt(socket, PeerCredentials) {
            Ok(found) => {
                let peer = Self { pid: found.pid(), uid: found.uid(), gid: found.gid() };
                tracing::debug!(pid = peer.pid, uid = peer.uid, gid = peer.gid, "connection");
                Some(peer)
            }
            Err(error) => {
                tracing::warn!(%error, "the peer's credentials can't be read");
                None
            }
        }
    }

    /// The user's number.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Whether it is root or runs as netd's own user.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0 || self.uid == geteuid().as_raw()
    }
}

/// A span for a call that changes something: every line within says who asked for it.
pub(crate) fn span<T>(request: &Request<T>) -> tracing::Span {
    match request.extensions().get::<Option<Peer>>().copied().flatten() {
        Some(Peer { pid, uid, gid }) => tracing::info_span!("call", pid, uid, gid),
        None => tracing::info_span!("call"),
    }
}
