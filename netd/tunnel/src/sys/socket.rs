//! The UDP sockets.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Received bytes that wait to be read: some 10 ms at 10 Gb/s.
const RECEIVE: usize = 8 << 20;
/// Bytes sent that no device has taken yet. For each peer whose link address is being
/// asked for the kernel keeps up to 200 KiB: a hundred dead peers must not fill this.
const SEND: usize = 32 << 20;

/// A socket that shares its address with those of this process's other queues: the kernel
/// gives each peer's datagrams to one of them, in order.
///
/// # Errors
/// The system's: the address is not this node's, or is in use.
pub fn bind(listen: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(true)?;
    if listen.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Beyond the system's limit if we may, else up to it.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE).is_err() {
        socket.set_recv_buffer_size(RECEIVE)?;
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SEND).is_err() {
        socket.set_send_buffer_size(SEND)?;
    }
    tell_traffic_class(&socket, listen)?;
    // Kernels before 5.0 have it not: datagrams come one by one then.
    let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

/// Has the kernel tell the traffic class of each datagram: routers mark it when they are
/// congested.
///
/// # Errors
/// The system's.
pub(crate) fn tell_traffic_class(socket: &impl AsFd, listen: SocketAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    match listen {
        SocketAddr::V4(_) => socket.set_recv_tos_v4(true),
        SocketAddr::V6(_) => socket.set_recv_tclass_v6(true),
    }
}
