//! Forged frames, sent raw from a pod, and what of them arrives at its neighbour.
//! Every frame ends with its number; the last one is honest and ends the listening.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use super::{
    testbed::{Netns, is_root},
    topology::{Pod, Topology},
};
use crate::firewall::elements::link_local;

type Frame = Vec<u8>;
/// What it is, and whether it may arrive.
type Case = (&'static str, bool, Frame);

const IP: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IP6: u16 = 0x86dd;
const EVERYBODY: [u8; 6] = [0xff; 6];
const MAGIC: &[u8] = b"netd spoofing test";

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Frame {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

fn ip4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() + MAGIC.len() + 1) as u16;
    let mut head = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    head[2..4].copy_from_slice(&length.to_be_bytes());
    head.extend(from.octets());
    head.extend(to.octets());
    let sum: u32 = head.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [&head, payload].concat()
}

fn ip6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() + MAGIC.len() + 1) as u16;
    let mut head = [0x60, 0, 0, 0, 0, 0, next, 255];
    head[4..6].copy_from_slice(&length.to_be_bytes());
    [&head[..], &from.octets(), &to.octets(), payload].concat()
}

/// A discovery message: type and target (RFC 4861, 4.3, 4.4), behind `options` bytes
/// of a destination options header if that is not 0.
fn discovery(kind: u8, target: Ipv6Addr, options: usize) -> (u8, Vec<u8>) {
    let message = [&[kind, 0, 0, 0, 0x20, 0, 0, 0][..], &target.octets()].concat();
    if options == 0 {
        return (58, message);
    }
    let mut header = vec![0; options];
    header[..4].copy_from_slice(&[58, (options / 8 - 1) as u8, 1, (options - 4) as u8]);
    (60, [header, message].concat())
}

fn arp(operation: u8, sender: ([u8; 6], Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let sender = [&sender.0[..], &sender.1.octets()].concat();
    [&head[..], &sender, &[0; 6], &target.octets()].concat()
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("{ip}"),
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => panic!("{ip}"),
    }
}

/// A raw socket on the namespace's eth0.
#[allow(clippy::disallowed_methods)] // a packet socket, not netlink
fn raw() -> OwnedFd {
    // SAFETY: plain system calls; the address outlives the call and is of the size given.
    unsafe {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
        assert!(fd >= 0);
        let fd = OwnedFd::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()) as i32;
        let pointer = (&raw const address).cast();
        assert_eq!(libc::bind(fd.as_raw_fd(), pointer, size_of_val(&address) as u32), 0);
        let wait = libc::timeval { tv_sec: 1, tv_usec: 0 };
        let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
        let size = size_of_val(&wait) as u32;
        libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const wait).cast(), size);
        fd
    }
}

/// Sends every case's frame; the numbers of those that arrive. The last must.
fn arriving(from: &Netns, to: &Netns, cases: &[Case]) -> BTreeSet<usize> {
    let listener = to.run(raw);
    let frames: Vec<Frame> = cases
        .iter()
        .enumerate()
        .map(|(i, (_, _, frame))| [&frame[..], MAGIC, &[i as u8]].concat())
        .collect();
    from.run(move || {
        let socket = raw();
        for frame in frames {
            // SAFETY: the pointer and length are of a live vector.
            let n =
                unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            assert_eq!(n, frame.len() as isize);
        }
    });
    let mut arrived = BTreeSet::new();
    let mut buffer = [0u8; 2048];
    while !arrived.contains(&(cases.len() - 1)) {
        // SAFETY: the pointer and length are of a live array.
        let n = unsafe {
            libc::recv(listener.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        };
        assert!(n >= 0, "the honest frame did not arrive; {arrived:?} did");
        if let Some((number, rest)) = buffer[..n as usize].split_last()
            && rest.ends_with(MAGIC)
        {
            arrived.insert(usize::from(*number));
        }
    }
    arrived
}

fn check(from: &Netns, to: &Netns, cases: &[Case]) {
    let arrived = arriving(from, to, cases);
    for (i, (what, may, _)) in cases.iter().enumerate() {
        assert_eq!(arrived.contains(&i), *may, "{what}");
    }
}

fn both(test: impl Fn(&Topology)) {
    if is_root() {
        for calls in [true, false] {
            eprintln!("bridge-nf-call-iptables: {calls}");
            test(&Topology::new(calls, &[]));
        }
    }
}

fn gateway() -> (Ipv4Addr, Ipv6Addr) {
    ("10.88.0.1".parse().unwrap(), "fd00:88::1".parse().unwrap())
}

fn honest(me: &Pod, you: &Pod) -> Frame {
    let packet = ip4(v4(me.v4()), v4(you.v4()), 253, b"");
    ethernet(you.wiring.mac.bytes(), me.wiring.mac.bytes(), IP, &packet)
}

#[test]
fn a_bridged_pod_sends_ipv4_only_as_itself() {
    both(|t| {
        let (me, you) = (&t.pods[0], &t.pods[1]);
        let (mac, other) = (me.wiring.mac.bytes(), you.wiring.mac.bytes());
        let (mine, yours) = (v4(me.v4()), v4(you.v4()));
        let send = |from, source: Ipv4Addr, to: Ipv4Addr| {
            ethernet(EVERYBODY, from, IP, &ip4(source, to, 253, b""))
        };
        let tagged = [&[0, 7, 8, 0][..], &ip4(mine, yours, 253, b"")].concat();
        let double = [&[0, 7, 0x81, 0, 0, 7, 8, 0][..], &ip4(mine, yours, 253, b"")].concat();
        let cases = [
            ("honest", true, send(mac, mine, yours)),
            ("another pod's MAC", false, send(other, mine, yours)),
            ("an unknown MAC", false, send([2, 0, 0, 0, 0, 9], mine, yours)),
            ("another pod's address", false, send(mac, yours, yours)),
            ("the gateway's address", false, send(mac, gateway().0, yours)),
            ("another pod altogether", false, send(other, yours, yours)),
            ("an outside address", false, send(mac, [192, 0, 2, 2].into(), yours)),
            ("no address (DHCP)", false, send(mac, [0; 4].into(), [255; 4].into())),
            ("from loopback", false, send(mac, [127, 0, 0, 1].into(), yours)),
            ("to loopback", false, send(mac, mine, [127, 0, 0, 1].into())),
            ("with a VLAN tag", false, ethernet(EVERYBODY, mac, 0x8100, &tagged)),
            ("with two VLAN tags", false, ethernet(EVERYBODY, mac, 0x88a8, &double)),
            ("spanning tree", false, ethernet(EVERYBODY, mac, 0x0026, &[0x42, 0x42, 3])),
            ("another protocol", false, ethernet(EVERYBODY, mac, 0x88b5, b"x")),
            ("honest to the neighbour alone", true, honest(me, you)),
        ];
        check(&me.netns, &you.netns, &cases);
    });
}

#[test]
fn a_bridged_pod_speaks_arp_only_for_itself() {
    both(|t| {
        let (me, you) = (&t.pods[0], &t.pods[1]);
        let (mac, other) = (me.wiring.mac.bytes(), you.wiring.mac.bytes());
        let (mine, yours) = (v4(me.v4()), v4(you.v4()));
        let gateway = gateway().0;
        let send = |from, message: Vec<u8>| ethernet(EVERYBODY, from, ARP, &message);
        let cases = [
            ("honest question", true, send(mac, arp(1, (mac, mine), yours))),
            ("honest announcement", true, send(mac, arp(1, (mac, mine), mine))),
            ("honest answer", true, send(mac, arp(2, (mac, mine), yours))),
            ("answer for the gateway", false, send(mac, arp(2, (mac, gateway), yours))),
            ("question as the gateway", false, send(mac, arp(1, (mac, gateway), yours))),
            ("answer for another pod", false, send(mac, arp(2, (mac, yours), mine))),
            ("another's MAC inside", false, send(mac, arp(2, (other, mine), yours))),
            ("another's MAC outside", false, send(other, arp(2, (mac, mine), yours))),
            ("probe for another's", false, send(mac, arp(1, (mac, [0; 4].into()), yours))),
            ("honest packet", true, honest(me, you)),
        ];
        check(&me.netns, &you.netns, &cases);
    });
}

#[test]
fn a_bridged_pod_speaks_ipv6_and_neighbour_discovery_only_as_itself() {
    both(|t| {
        let (me, you) = (&t.pods[0], &t.pods[1]);
        let (mac, other) = (me.wiring.mac.bytes(), you.wiring.mac.bytes());
        let (mine, yours, local) = (v6(me.v6()), v6(you.v6()), link_local(me.wiring.mac));
        let (gateway, all) = (gateway().1, "ff02::1".parse().unwrap());
        let none = Ipv6Addr::UNSPECIFIED;
        let plain = |from, source| ethernet(EVERYBODY, from, IP6, &ip6(source, yours, 253, b""));
        let nd = |source, kind, target, options| {
            let (next, message) = discovery(kind, target, options);
            ethernet(EVERYBODY, mac, IP6, &ip6(source, all, next, &message))
        };
        let cases = [
            ("honest", true, plain(mac, mine)),
            ("link-local of the own MAC", true, plain(mac, local)),
            ("another link-local", false, plain(mac, link_local(you.wiring.mac))),
            ("another pod's address", false, plain(mac, yours)),
            ("the gateway's", false, plain(mac, gateway)),
            ("another's MAC", false, plain(other, mine)),
            ("from nowhere", false, plain(mac, none)),
            ("loopback", false, plain(mac, Ipv6Addr::LOCALHOST)),
            ("question", true, nd(mine, 135, yours, 0)),
            ("question from link-local", true, nd(local, 135, yours, 0)),
            ("question as the gateway", false, nd(gateway, 135, yours, 0)),
            ("duplicate detection of the own", true, nd(none, 135, mine, 0)),
            ("duplicate detection of another's", false, nd(none, 135, yours, 0)),
            ("advertisement of the own", true, nd(mine, 136, mine, 0)),
            ("advertisement of the own link-local", true, nd(local, 136, local, 0)),
            ("advertisement of the gateway", false, nd(mine, 136, gateway, 0)),
            ("advertisement of another's", false, nd(mine, 136, yours, 0)),
            ("advertisement of another's from link-local", false, nd(local, 136, yours, 0)),
            ("advertisement behind a header", false, nd(mine, 136, gateway, 8)),
            ("advertisement behind a long header", false, nd(mine, 136, gateway, 24)),
            ("honest advertisement behind a header", true, nd(mine, 136, mine, 8)),
            ("advertisement from nowhere", false, nd(none, 136, mine, 0)),
            ("router advertisement", false, nd(mine, 134, gateway, 0)),
            ("router advertisement from link-local", false, nd(local, 134, gateway, 0)),
            ("redirect", false, nd(local, 137, gateway, 0)),
            ("honest packet", true, honest(me, you)),
        ];
        check(&me.netns, &you.netns, &cases);
    });
}

#[test]
fn a_routed_pod_sends_only_as_itself_and_fills_no_neighbour_table() {
    both(|t| {
        let (me, you) = (&t.pods[5], &t.pods[6]);
        let (mac, host) = (me.wiring.mac.bytes(), me.wiring.host_mac.bytes());
        let (mine, yours) = (v4(me.v4()), v4(you.v4()));
        let (mine6, yours6) = (v6(me.v6()), v6(you.v6()));
        let outside = Ipv4Addr::new(192, 0, 2, 77);
        let send = |from, source| ethernet(host, from, IP, &ip4(source, yours, 253, b""));
        let six = |from, source| ethernet(host, from, IP6, &ip6(source, yours6, 253, b""));
        let other = you.wiring.mac.bytes();
        let fill = ethernet(EVERYBODY, mac, ARP, &arp(1, (mac, outside), [192, 0, 2, 1].into()));
        let cases = [
            ("honest", true, send(mac, mine)),
            ("honest IPv6", true, six(mac, mine6)),
            ("another pod's address", false, send(mac, yours)),
            ("a bridged pod's address", false, send(mac, [10, 88, 0, 5].into())),
            ("an outside address", false, send(mac, outside)),
            ("loopback", false, send(mac, [127, 0, 0, 1].into())),
            ("another MAC", false, send(other, mine)),
            ("another pod's IPv6 address", false, six(mac, yours6)),
            ("another MAC with IPv6", false, six(other, mine6)),
            ("the host's link-local", false, six(mac, "fe80::1".parse().unwrap())),
            ("ARP as another pod", false, fill),
            ("honest at the end", true, send(mac, mine)),
        ];
        check(&me.netns, &you.netns, &cases);
        let neighbours = t.node.sh("ip neigh show");
        assert!(!neighbours.contains("192.0.2.77"), "{neighbours}");
    });
}

#[test]
fn sctp_host_ports_lead_to_the_pod() {
    if !is_root() {
        return;
    }
    // This kernel may have no SCTP sockets: an INIT chunk (RFC 9260, 3.3.2) by hand.
    let mapping = super::samples::port(netd_domain::Protocol::Sctp, (None, 9000), 9001);
    let t = Topology::new(true, &[(0, mapping)]);
    let listener = t.pods[0].netns.run(raw);
    // sysfs would show the namespace that mounted it.
    let node = t.node.sh("ip -o link show up0 | sed 's/.*ether //; s/ .*//'");
    let node: netd_domain::Mac = node.trim().parse().unwrap();
    t.outside.run(move || {
        let chunk = [1u8, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        let mut segment = [&5000u16.to_be_bytes()[..], &9000u16.to_be_bytes(), &[0; 8]].concat();
        segment.extend(chunk);
        let sum = crc32c(&segment).to_le_bytes();
        segment[8..12].copy_from_slice(&sum);
        let mut packet = ip4([192, 0, 2, 2].into(), [192, 0, 2, 1].into(), 132, b"");
        packet.extend(&segment);
        let length = (packet.len() as u16).to_be_bytes();
        packet[2..4].copy_from_slice(&length);
        packet[10..12].copy_from_slice(&[0, 0]);
        let words = packet[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
        let sum: u32 = words.sum();
        packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        let frame = ethernet(node.bytes(), [2, 0, 0, 0, 0, 5], IP, &packet);
        let socket = raw();
        // SAFETY: the pointer and length are of a live vector.
        let n = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(n, frame.len() as isize);
    });
    let mut buffer = [0u8; 2048];
    loop {
        // SAFETY: the pointer and length are of a live array.
        let n = unsafe {
            libc::recv(listener.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
        };
        assert!(n >= 0, "nothing arrived");
        // Protocol, destination address, source and destination port.
        if n >= 46 && buffer[23] == 132 {
            assert_eq!(buffer[30..34], [10, 88, 0, 5]);
            assert_eq!(buffer[34..38], [0x13, 0x88, 0x23, 0x29]);
            return;
        }
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |c, _| (c >> 1) ^ (0x82f6_3b78 & (c & 1).wrapping_neg()))
    })
}
