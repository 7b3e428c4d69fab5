//! One netd in a network namespace: two would remove each other's links and rules, whatever
//! their directories are.
//!
//! The lock is a Unix socket with an abstract name, which belongs to the network namespace
//! and goes with the process that has it, however that ends.

use std::{
    io,
    os::{
        fd::AsRawFd as _,
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
    sockopt::PeerCredentials,
};

const NAME: &str = "netd/network-namespace";

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct NetnsLock {
    listener: Option<UnixListener>,
}

impl NetnsLock {
    /// Holds the lock until the process ends. Who connects only asks who has it; a queue of
    /// such connections that nobody takes would make the next one wait.
    pub(super) async fn hold_forever(self) {
        /// Out of descriptors, for example.
        const PAUSE: Duration = Duration::from_secs(1);
        let listener = self.listener.map(|listener| {
            listener.set_nonblocking(true)?;
            tokio::net::UnixListener::from_std(listener)
        });
        match listener.transpose() {
            Ok(Some(listener)) => loop {
                if listener.accept().await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Ok(None) => std::future::pending().await,
            Err(error) => {
                tracing::error!(%error, "the lock of the network namespace is lost: {error}")
            }
        }
    }
}

/// Why the lock can't be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another netd has it.
    #[error(
        "another netd ({holder}) already works in this network namespace; stop that one \
         (systemctl stop netd, or kill it), or start this one in a network namespace of its own"
    )]
    Held {
        /// "pid 123", or what is known.
        holder: String,
    },
    /// The system's.
    #[error("the lock of this network namespace (an abstract Unix socket): {0}")]
    System(#[from] io::Error),
}

/// The process that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    /// 0: it is in another PID namespace.
    pid: i32,
    uid: u32,
}

/// Takes the lock.
///
/// # Errors
/// See [`LockError`].
pub(super) fn take() -> Result<NetnsLock, LockError> {
    take_named(NAME)
}

fn take_named(name: &str) -> Result<NetnsLock, LockError> {
    let address = SocketAddr::from_abstract_name(name)?;
    match UnixListener::bind_addr(&address) {
        Ok(listener) => Ok(NetnsLock { listener: Some(listener) }),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => judge(holder(name)),
        Err(error) => Err(error.into()),
    }
}

/// `None`: the socket does not listen, or not yet.
fn holder(name: &str) -> Option<Holder> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    #[allow(clippy::disallowed_methods)] // a Unix one
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    let address = UnixAddr::new_abstract(name.as_bytes()).ok()?;
    connect(stream.as_raw_fd(), &address).ok()?;
    let peer = getsockopt(&stream, PeerCredentials).ok()?;
    Some(Holder { pid: peer.pid(), uid: peer.uid() })
}

/// Abstract names have no permissions: a user who is not root must not keep netd from
/// starting by taking the name.
fn judge(holder: Option<Holder>) -> Result<NetnsLock, LockError> {
    match holder {
        Some(Holder { pid, uid }) if uid != 0 => {
            tracing::error!(
                pid,
                uid,
                "process {pid} of user {uid} has the name of netd's lock of this network namespace, which only root may; starting without the lock"
            );
            Ok(NetnsLock { listener: None })
        }
        Some(Holder { pid: 0, .. }) => {
            Err(LockError::Held { holder: "a process of another PID namespace".to_owned() })
        }
        Some(Holder { pid, .. }) => Err(LockError::Held { holder: format!("pid {pid}") }),
        None => Err(LockError::Held { holder: "which is just starting or ending".to_owned() }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_had_once_and_names_its_holder() {
        // Not netd's own: other tests run on this machine at the same time.
        let name = format!("netd-test/{}", std::process::id());
        let first = take_named(&name).unwrap();
        let refused = take_named(&name).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        take_named(&name).unwrap();
    }

    #[test]
    fn only_roots_processes_count() {
        assert!(judge(Some(Holder { pid: 7, uid: 1000 })).is_ok());
        for holder in [Some(Holder { pid: 7, uid: 0 }), Some(Holder { pid: 0, uid: 0 }), None] {
            assert!(judge(holder).is_err(), "{holder:?}");
        }
    }
}
