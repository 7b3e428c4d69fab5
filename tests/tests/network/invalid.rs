//! Segments of pods that conntrack can't assign to a connection are not translated: whoever got
//! one would see an unknown peer, and reset the connection.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::{DaemonConfig, Namespace, Sandbox, case, net::raw::Raw};

use crate::node::Node;

const HOST_PORT: u16 = 8080;
const POD_PORT: u16 = 7000;
const LIMIT: Duration = Duration::from_secs(2);

/// A segment far outside of every window. The kernel of the pod makes the IP header.
#[allow(clippy::disallowed_methods)] // no netlink socket
fn send_stray(net: &Namespace, from: SocketAddr, to: SocketAddr) -> Result<()> {
    const ACK: u8 = 0x10;
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    segment.extend(0x7fff_1234_u32.to_be_bytes());
    segment.extend(0x7fff_4321_u32.to_be_bytes());
    segment.extend([5 << 4, ACK, 1, 0, 0, 0, 0, 0]);
    let mut pseudo: Vec<u8> = Vec::new();
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => pseudo.extend(ip.octets()),
            IpAddr::V6(ip) => pseudo.extend(ip.octets()),
        }
    }
    pseudo.extend([0, 6, 0, 20]);
    pseudo.extend(&segment);
    let words = pseudo.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    segment.splice(16..18, (!u16::try_from(sum)?).to_be_bytes());
    net.run(|| {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: plain system call without pointers; the result is checked.
        let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_TCP) };
        ensure!(fd >= 0, "raw socket: {}", std::io::Error::last_os_error());
        // SAFETY: fd was just opened and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut address = to;
        address.set_port(0);
        let address = nix::sys::socket::SockaddrStorage::from(address);
        let flags = nix::sys::socket::MsgFlags::empty();
        nix::sys::socket::sendto(socket.as_raw_fd(), &segment, &address, flags)?;
        Ok(())
    })
}

/// Whether a frame of IPv4 or IPv6 comes from `ip`.
fn is_from(frame: &[u8], ip: IpAddr) -> bool {
    let at = |start: usize, bytes: &[u8]| frame.get(start..start + bytes.len()) == Some(bytes);
    match ip {
        IpAddr::V4(ip) => at(12, &[8, 0]) && at(26, &ip.octets()),
        IpAddr::V6(ip) => at(12, &[0x86, 0xdd]) && at(22, &ip.octets()),
    }
}

fn still_works(one: &mut TcpStream, other: &mut TcpStream) -> Result<()> {
    for stream in [&one, &other] {
        stream.set_read_timeout(Some(LIMIT))?;
    }
    let mut byte = [0];
    one.write_all(b"1")?;
    other.read_exact(&mut byte).context("towards the pod or the server")?;
    other.write_all(b"2")?;
    one.read_exact(&mut byte).context("back")?;
    Ok(())
}

fn strays_of_a_pod_stay_in(driver: &str) -> Result<()> {
    case(|bed| {
        let outside = bed.host("outside")?;
        let node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let pod = Sandbox::with_ports(&node.host, "pod", &[(HOST_PORT, POD_PORT, "tcp", "")])?;
        let served = pod.net.run(|| Ok(TcpListener::bind(("::", POD_PORT))?))?;
        let server = outside.net.run(|| Ok(TcpListener::bind(("::", POD_PORT))?))?;
        let ear = Raw::open(&outside.net, "eth0")?;
        for (own, host, out) in [
            (pod.v4()?, IpAddr::from(node.host.v4), IpAddr::from(outside.v4)),
            (pod.v6()?, node.host.v6.into(), outside.v6.into()),
        ] {
            // In by the host port.
            let to = SocketAddr::new(host, HOST_PORT);
            let mut client = outside.net.run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)?))?;
            let (mut accepted, _) = served.accept()?;
            still_works(&mut client, &mut accepted)?;
            let peer = SocketAddr::new(out, client.local_addr()?.port());
            send_stray(&pod.net, SocketAddr::new(own, POD_PORT), peer)?;
            let seen = ear.receive(Duration::from_millis(500), |frame| is_from(frame, own));
            ensure!(seen.is_none(), "{own} was seen outside, behind a host port");
            still_works(&mut client, &mut accepted).context("the host port's connection")?;
            // Out behind the node's address.
            let to = SocketAddr::new(out, POD_PORT);
            let mut client = pod.net.run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)?))?;
            let (mut accepted, _) = server.accept()?;
            still_works(&mut client, &mut accepted)?;
            send_stray(&pod.net, SocketAddr::new(own, client.local_addr()?.port()), to)?;
            let seen = ear.receive(Duration::from_millis(500), |frame| is_from(frame, own));
            ensure!(seen.is_none(), "{own} was seen outside, masqueraded");
            still_works(&mut client, &mut accepted).context("the masqueraded connection")?;
        }
        // From the host by 127.0.0.1: the host itself would reset what it does not know.
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), HOST_PORT);
        let mut client = node.host.net.run(|| Ok(TcpStream::connect_timeout(&to, LIMIT)?))?;
        let (mut accepted, peer) = served.accept()?;
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        send_stray(&pod.net, SocketAddr::new(pod.v4()?, POD_PORT), peer)?;
        still_works(&mut client, &mut accepted).context("the connection by 127.0.0.1")
    })
}

#[test]
fn strays_of_a_bridged_pod_stay_in() -> Result<()> {
    strays_of_a_pod_stay_in("bridge")
}

#[test]
fn strays_of_a_routed_pod_stay_in() -> Result<()> {
    strays_of_a_pod_stay_in("routed")
}
