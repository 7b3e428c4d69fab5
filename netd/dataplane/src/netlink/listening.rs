//! Sockets of processes that wait for clients (`NETLINK_SOCK_DIAG`).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Received, Socket, attribute};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// Size of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
/// Offsets in `struct inet_diag_msg`.
const SOURCE_PORT: usize = 4;
const SOURCE: usize = 8;
const UID: usize = 64;
const ATTRIBUTES: usize = 72;
/// `INET_DIAG_SKV6ONLY`
const V6_ONLY: u16 = 11;
/// `TCP_CLOSE`: a UDP socket that is connected to nobody. `TCP_LISTEN`.
const UNCONNECTED: u32 = 1 << 7;
const LISTEN: u32 = 1 << 10;

/// `TCP_ESTABLISHED`: of a UDP socket, it is connected.
const CONNECTED: u32 = 1 << 1;
/// `idiag_inode`
const INODE: usize = 68;

/// A UDP socket that has a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoundSocket {
    /// The user that it belongs to.
    pub uid: u32,
    /// As in the link `/proc/PID/fd/N`: `socket:[INODE]`.
    pub inode: u32,
}

/// The UDP sockets on a port, of both families, connected or not.
///
/// # Errors
/// The socket's.
pub(crate) fn udp_at(socket: &mut Socket, port: u16) -> io::Result<Vec<BoundSocket>> {
    let udp = libc::IPPROTO_UDP as u8;
    let found = dump(socket, udp, UNCONNECTED | CONNECTED)?;
    let here = found.iter().filter(|message| own_port(message) == Some(port));
    let read = |message: &Received| {
        let body = message.body();
        let uid = attribute::u32_at(body, UID)?;
        Some(BoundSocket { uid, inode: attribute::u32_at(body, INODE)? })
    };
    Ok(here.filter_map(read).collect())
}

/// A socket that waits for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ListeningSocket {
    /// Its own address and port.
    pub address: SocketAddr,
    /// On every address of IPv4 too, though its address is of IPv6.
    pub both_families: bool,
    /// The user that it belongs to.
    pub uid: u32,
}

/// The sockets of a transport protocol (IANA's number) in the socket's namespace, of both
/// families. None if the kernel has no such protocol, or can't list its sockets.
///
/// # Errors
/// The socket's.
pub(crate) fn list(socket: &mut Socket, protocol: u8) -> io::Result<Vec<ListeningSocket>> {
    let states = if i32::from(protocol) == libc::IPPROTO_UDP { UNCONNECTED } else { LISTEN };
    Ok(dump(socket, protocol, states)?.iter().filter_map(read).collect())
}

fn dump(socket: &mut Socket, protocol: u8, states: u32) -> io::Result<Vec<Received>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let answer = match socket.dump_raw(BY_FAMILY, &request(family as u8, protocol, states)) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP)) => continue,
            other => other?,
        };
        found.extend(answer);
    }
    Ok(found)
}

fn own_port(message: &Received) -> Option<u16> {
    let bytes = message.body().get(SOURCE_PORT..SOURCE_PORT + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn request(family: u8, protocol: u8, states: u32) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend_from_slice(&states.to_ne_bytes());
    body.resize(REQUEST, 0);
    body
}

fn read(message: &Received) -> Option<ListeningSocket> {
    let body = message.body();
    let port = own_port(message)?;
    let bytes: [u8; 16] = body.get(SOURCE..SOURCE + 16)?.try_into().ok()?;
    let ip = match i32::from(*body.first()?) {
        libc::AF_INET => IpAddr::from(Ipv4Addr::from(*bytes.first_chunk::<4>()?)),
        _ => IpAddr::from(Ipv6Addr::from(bytes)).to_canonical(),
    };
    let v6_only = attribute::find(body.get(ATTRIBUTES..).unwrap_or_default(), V6_ONLY);
    let v6_only = v6_only.and_then(|value| value.first()).is_some_and(|only| *only != 0);
    Some(ListeningSocket {
        address: SocketAddr::new(ip, port),
        both_families: ip.is_ipv6() && ip.is_unspecified() && !v6_only,
        uid: attribute::u32_at(body, UID)?,
    })
}
