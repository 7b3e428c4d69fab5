//! The sockets of a tunnel's listen addresses.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// One listen address.
#[derive(Debug, Clone)]
pub struct Link {
    /// The address.
    pub listen: SocketAddr,
    /// One socket a queue.
    pub sockets: Vec<Arc<OwnedFd>>,
}

/// All of a tunnel.
#[derive(Debug, Default)]
pub struct Links(pub Vec<Link>);

impl Links {
    /// Those that the queue takes datagrams from: one of each address.
    pub fn sockets(&self, queue: usize) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(move |link| link.sockets.get(queue)).map(|socket| socket.as_fd())
    }

    /// What the queue sends to `peer` from: the first address of the family.
    pub fn socket(&self, peer: SocketAddr, queue: usize) -> Option<BorrowedFd<'_>> {
        let link = self.0.iter().find(|link| link.listen.is_ipv4() == peer.is_ipv4())?;
        let index = queue.checked_rem(link.sockets.len())?;
        link.sockets.get(index).map(|socket| socket.as_fd())
    }
}
