//! Tells the neighbours of a bridged pod where its addresses are: a gratuitous ARP request and an
//! unsolicited neighbour advertisement. Without them an address that comes back with another MAC
//! is out of reach until its neighbours' old entries have expired, which takes half a minute.
//!
//! Neighbours of a routed pod need none: the host has a permanent entry, and nobody else sees it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use crate::{
    DataplaneError,
    error::failed,
    exec::namespace::{self, Netns},
};
use netd_domain::{IfName, Mac, Wiring, WiringDriver};

/// Announces the addresses of an endpoint, if it has neighbours. Closing the packet socket waits
/// for an RCU grace period, some milliseconds.
pub(crate) fn announce(netns: &Netns, wiring: &Wiring) -> Result<(), DataplaneError> {
    if wiring.driver == WiringDriver::Routed {
        return Ok(());
    }
    let mac = wiring.present_mac();
    let frames: Vec<_> = wiring.ips().map(|ip| frame(mac, ip)).collect();
    let sent = namespace::run_in(netns.as_fd(), || send(&wiring.ifname, &frames));
    sent.and_then(|sent| sent)
        .map_err(failed(format!("{}: announcing its addresses", wiring.ifname)))
}

/// Sends frames out of a device of the calling thread's namespace.
fn send(device: &IfName, frames: &[Vec<u8>]) -> io::Result<()> {
    let index = nix::net::if_::if_nametoindex(device.as_str())?;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: plain system call; the descriptor is owned from here on. Protocol 0 receives
    // nothing.
    #[allow(clippy::disallowed_methods)] // netlink's file has no packet sockets
    let socket = unsafe {
        let raw = libc::socket(libc::AF_PACKET, kind, 0);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    for frame in frames {
        // SAFETY: all zero is a valid sockaddr_ll.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index.cast_signed();
        let (address, length) = ((&raw const to).cast(), size_of_val(&to) as u32);
        // SAFETY: the frame and the address live through the call.
        let sent = unsafe {
            let fd = socket.as_raw_fd();
            libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, address, length)
        };
        if sent < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn frame(mac: Mac, ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => gratuitous_arp(mac, ip),
        IpAddr::V6(ip) => unsolicited_advertisement(mac, ip),
    }
}

/// An ARP announcement (RFC 5227, 1.1): a request for the own address.
fn gratuitous_arp(mac: Mac, ip: Ipv4Addr) -> Vec<u8> {
    const HEADER: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
    let (mac, ip) = (mac.bytes(), ip.octets());
    [&[0xff; 6], &mac[..], &[8, 6], &HEADER, &mac, &ip, &[0; 6], &ip].concat()
}

/// To all nodes (RFC 4861, 4.4 and 7.2.6).
fn unsolicited_advertisement(mac: Mac, ip: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const ICMPV6: u8 = 58;
    const ADVERTISEMENT: u8 = 136;
    /// It overrides what its receivers know.
    const OVERRIDE: u8 = 0x20;
    const TARGET_LINK_ADDRESS: [u8; 2] = [2, 1];
    let (mac, ip) = (mac.bytes(), ip.octets());
    let mut body = vec![ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0];
    body.extend_from_slice(&ip);
    body.extend_from_slice(&TARGET_LINK_ADDRESS);
    body.extend_from_slice(&mac);
    let length = body.len() as u16;
    let pseudo =
        [&ip[..], &ALL_NODES.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, ICMPV6]];
    let sum = checksum(&[&pseudo.concat()[..], &body].concat());
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let [high, low] = length.to_be_bytes();
    let header = [0x60, 0, 0, 0, high, low, ICMPV6, 255];
    let link = [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd]].concat();
    [&link[..], &header, &ip, &ALL_NODES.octets(), &body].concat()
}

/// RFC 1071; of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x0a, 0x58, 0x0a, 0x58, 0, 5];

    fn mac() -> Mac {
        "0a:58:0a:58:00:05".parse().unwrap()
    }

    #[test]
    fn an_arp_announcement_asks_for_its_own_address() {
        let frame = gratuitous_arp(mac(), "10.88.0.5".parse().unwrap());
        assert_eq!(frame.len(), 42);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!((&frame[6..12], &frame[22..28]), (&MAC[..], &MAC[..]));
        assert_eq!((&frame[28..32], &frame[38..42]), (&[10, 88, 0, 5][..], &[10, 88, 0, 5][..]));
    }

    #[test]
    fn an_advertisement_has_a_checksum_that_its_receivers_find_right() {
        let frame = unsolicited_advertisement(mac(), "fd00:88::5".parse().unwrap());
        assert_eq!(frame.len(), 14 + 40 + 32);
        let (addresses, body) = (&frame[22..54], &frame[54..]);
        let pseudo = [addresses, &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(checksum(&[&pseudo[..], body].concat()), 0);
        assert_eq!(body[body.len() - 6..], MAC);
    }
}
