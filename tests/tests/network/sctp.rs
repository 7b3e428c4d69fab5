//! SCTP host ports. The kernel here may know no SCTP sockets, so associations are
//! begun by hand: an INIT to the host's port arrives at the pod's port.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use anyhow::{Result, ensure};
use testbed::{DaemonConfig, Namespace, Sandbox, case, net::raw::Raw};

use crate::node::Node;

const SCTP: i32 = 132;
const HOST_PORT: u16 = 9899;
const POD_PORT: u16 = 5000;

/// CRC32c, reflected, as RFC 9260 Appendix A has it.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A packet with an INIT chunk (RFC 9260 3.3.2).
fn init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    // No verification tag in an INIT; the checksum comes last.
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(0x0102_0304_u32.to_be_bytes());
    packet.extend(65536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    let crc = crc32c(&packet);
    packet.splice(8..12, crc.to_le_bytes());
    packet
}

#[allow(clippy::disallowed_methods)] // no netlink socket
/// Sends an IP payload over a raw socket inside `net`; the kernel makes the IP header.
fn send(net: &Namespace, to: Ipv4Addr, packet: &[u8]) -> Result<()> {
    net.run(|| {
        // SAFETY: plain system call without pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, SCTP) };
        ensure!(fd >= 0, "raw socket: {}", std::io::Error::last_os_error());
        // SAFETY: fd was just opened and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let [a, b, c, d] = to.octets();
        let address = nix::sys::socket::SockaddrIn::new(a, b, c, d, 0);
        let flags = nix::sys::socket::MsgFlags::empty();
        nix::sys::socket::sendto(socket.as_raw_fd(), packet, &address, flags)?;
        Ok(())
    })
}

/// Whether an IPv4 frame is an INIT from `from` to the pod's port.
fn is_init(frame: &[u8], from: u16) -> bool {
    let Some((ethernet, ip)) = frame.split_at_checked(14) else { return false };
    let ports = [from.to_be_bytes(), POD_PORT.to_be_bytes()].concat();
    ethernet.ends_with(&[8, 0])
        && ip.get(9).is_some_and(|protocol| i32::from(*protocol) == SCTP)
        && ip.get(20..24) == Some(ports.as_slice())
        && ip.get(32) == Some(&1)
}

fn an_association_reaches_the_pod(driver: &str) -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let outside = bed.host("outside")?;
        let pod = Sandbox::with_ports(&node.host, "pod", &[(HOST_PORT, POD_PORT, "sctp", "")])?;
        let ear = Raw::open(&pod.net, "eth0")?;
        let limit = Duration::from_secs(1);
        for (number, (who, net)) in
            [("outside", &outside.net), ("the host", &node.host.net)].into_iter().enumerate()
        {
            let from = 40_000 + u16::try_from(number)?;
            send(net, node.host.v4, &init(from, HOST_PORT))?;
            ensure!(ear.receive(limit, |frame| is_init(frame, from)).is_some(), "from {who}");
        }
        // The port is SCTP's alone.
        let tcp = testbed::net::probe::tcp(&outside.net, IpAddr::from(node.host.v4), HOST_PORT);
        ensure!(tcp.is_err());
        pod.del(&node.host)?;
        send(&outside.net, node.host.v4, &init(40_009, HOST_PORT))?;
        drop(ear);
        node.nothing_left()
    })
}

#[test]
fn an_sctp_host_port_on_a_bridge_leads_to_the_pod() -> Result<()> {
    an_association_reaches_the_pod("bridge")
}

#[test]
fn an_sctp_host_port_of_a_routed_pod_leads_to_the_pod() -> Result<()> {
    an_association_reaches_the_pod("routed")
}

/// A client that repeats its INIT from one port never begins a new flow.
#[test]
fn an_association_that_was_begun_before_the_pod_came_reaches_it() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        let first = init(40_000, HOST_PORT);
        for _ in 0..3 {
            send(&outside.net, node.host.v4, &first)?;
        }
        let entries = node.host.net.sh("conntrack -L -p sctp 2>/dev/null")?;
        ensure!(entries.contains("sport=40000"), "{entries}");
        let pod = Sandbox::with_ports(&node.host, "pod", &[(HOST_PORT, POD_PORT, "sctp", "")])?;
        let ear = Raw::open(&pod.net, "eth0")?;
        testbed::wait::until(Duration::from_secs(3), "the INIT arrives", || {
            send(&outside.net, node.host.v4, &first)?;
            let found = ear.receive(Duration::from_millis(100), |frame| is_init(frame, 40_000));
            ensure!(found.is_some(), "not yet");
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}
