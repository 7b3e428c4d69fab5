//! Frames made by hand, for what an honest stack would never send.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::namespace::Namespace;

/// A hardware address.
pub type Mac = [u8; 6];
/// To everybody.
pub(crate) const BROADCAST: Mac = [0xff; 6];

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// A packet socket on one interface: sends and sees whole Ethernet frames.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
}

impl Raw {
    /// Opens it on `interface` of the namespace.
    #[allow(clippy::disallowed_methods)] // a packet socket, not netlink
    pub fn open(net: &Namespace, interface: &str) -> Result<Self> {
        net.run(|| {
            let all = i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be());
            // SAFETY: plain system call without pointers; the result is checked.
            let fd =
                unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all) };
            ensure!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
            // SAFETY: fd was just opened and is nobody else's.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            let index = nix::net::if_::if_nametoindex(interface)
                .with_context(|| format!("no interface {interface}"))?;
            bind(&socket, index)?;
            Ok(Self { socket })
        })
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        nix::unistd::write(&self.socket, frame).context("send a frame")?;
        Ok(())
    }

    /// The first frame within `limit` that `wanted` accepts.
    pub fn receive(&self, limit: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let start = Instant::now();
        let mut buffer = vec![0; 65536];
        while let Some(left) = limit.checked_sub(start.elapsed()) {
            if !self.readable(left) {
                return None;
            }
            let length = nix::unistd::read(&self.socket, &mut buffer).unwrap_or(0);
            let frame = buffer.get(..length).unwrap_or_default();
            if wanted(frame) {
                return Some(frame.to_vec());
            }
        }
        None
    }

    fn readable(&self, limit: Duration) -> bool {
        let fd = self.socket.as_raw_fd();
        let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let limit = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: one valid pollfd that outlives the call.
        unsafe { libc::poll(&mut poll, 1, limit) > 0 }
    }
}

fn bind(socket: &OwnedFd, index: u32) -> Result<()> {
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL)?.to_be();
    address.sll_ifindex = i32::try_from(index)?;
    let length = u32::try_from(size_of::<libc::sockaddr_ll>())?;
    // SAFETY: a valid sockaddr_ll of the length given.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    ensure!(bound == 0, "bind a packet socket: {}", std::io::Error::last_os_error());
    Ok(())
}

fn ethernet(from: Mac, to: Mac, kind: u16) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes()].concat()
}

/// A UDP datagram over IPv4.
pub fn udp4(macs: (Mac, Mac), ips: (Ipv4Addr, Ipv4Addr), port: u16, payload: &[u8]) -> Vec<u8> {
    let udp_length = 8 + payload.len() as u16;
    let mut header = vec![0x45, 0];
    header.extend((20 + udp_length).to_be_bytes());
    header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    header.extend(ips.0.octets());
    header.extend(ips.1.octets());
    let sum = checksum(&header);
    header.splice(10..12, sum.to_be_bytes());
    let mut frame = ethernet(macs.0, macs.1, IPV4);
    frame.extend(header);
    // Over IPv4, a checksum of zero says that there is none.
    frame.extend(
        [port.to_be_bytes(), port.to_be_bytes(), udp_length.to_be_bytes(), [0, 0]].concat(),
    );
    frame.extend(payload);
    frame
}

/// A UDP datagram over IPv6.
pub fn udp6(macs: (Mac, Mac), ips: (Ipv6Addr, Ipv6Addr), port: u16, payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len() as u16;
    let mut datagram =
        [port.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    datagram.extend(payload);
    let sum = checksum6(ips, 17, &datagram);
    datagram.splice(6..8, sum.to_be_bytes());
    ip6(macs, ips, (17, 64), &datagram)
}

fn ip6(macs: (Mac, Mac), ips: (Ipv6Addr, Ipv6Addr), next: (u8, u8), payload: &[u8]) -> Vec<u8> {
    let mut frame = ethernet(macs.0, macs.1, IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((payload.len() as u16).to_be_bytes());
    frame.extend([next.0, next.1]);
    frame.extend(ips.0.octets());
    frame.extend(ips.1.octets());
    frame.extend(payload);
    frame
}

/// An ARP reply from `sender`, who says that `claims` is at `mac`, to everybody.
pub fn arp_claim(sender: Mac, mac: Mac, claims: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(sender, BROADCAST, ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(mac);
    frame.extend(claims.octets());
    frame.extend(BROADCAST);
    frame.extend(claims.octets());
    frame
}

/// An unsolicited neighbour advertisement: `claims` is at `mac` (RFC 4861 4.4).
pub fn nd_claim(sender: Mac, mac: Mac, claims: Ipv6Addr) -> Vec<u8> {
    let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Override flag; option 2, the target's link-layer address.
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(claims.octets());
    message.extend([2, 1]);
    message.extend(mac);
    let sum = checksum6((claims, everybody), 58, &message);
    message.splice(2..4, sum.to_be_bytes());
    ip6((sender, [0x33, 0x33, 0, 0, 0, 1]), (claims, everybody), (58, 255), &message)
}

fn checksum6(ips: (Ipv6Addr, Ipv6Addr), next: u8, payload: &[u8]) -> u16 {
    let mut bytes = [ips.0.octets(), ips.1.octets()].concat();
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend([0, 0, 0, next]);
    bytes.extend(payload);
    checksum(&bytes)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An interface's hardware address.
pub fn mac_of(net: &Namespace, interface: &str) -> Result<Mac> {
    // Not from /sys, which shows the namespace that it was mounted in.
    let shown = net.sh(&format!("ip -o link show dev {interface}"))?;
    let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    parse_mac(mac.with_context(|| format!("no MAC: {shown}"))?)
}

/// `02:00:00:00:00:01`.
pub fn parse_mac(text: &str) -> Result<Mac> {
    let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
    let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().with_context(|| text.to_owned())?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("`{text}` is no MAC"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_rfc_1071() {
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_mac_needs_six_bytes() {
        assert_eq!(parse_mac("02:00:00:00:00:0a").unwrap(), [2, 0, 0, 0, 0, 10]);
        assert!(parse_mac("02:00:00:00:00").is_err());
        assert!(parse_mac("02:00:00:00:00:xx").is_err());
    }
}
