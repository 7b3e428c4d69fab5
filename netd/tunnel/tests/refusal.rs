//! What is not taken: from strangers, with others' addresses, garbage.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::Read as _,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use common::{Backend, Pair, case, endpoint, ip, stream, wire};
use netd::tunnel::{PeerChange, TunnelError, TunnelPeerName};
use testbed::block_on;

const POD_1: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);
const NODE_2: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 1);

/// A pair of which node 1's process is stopped: its address is the test's.
fn forged() -> Result<(Pair, std::net::UdpSocket)> {
    let mut pair = Pair::new(Backend::Udp, false)?;
    pair.a.process.kill9()?;
    let socket = wire::socket(&pair.a.net, pair.outer(1))?;
    socket.connect(pair.outer(2))?;
    Ok((pair, socket))
}

#[test]
fn udp_takes_only_what_belongs_to_the_sender() -> Result<()> {
    let (pair, socket) = forged()?;
    case(pair, |pair| {
        let inside = pair.b.net.run(|| Ok(std::net::UdpSocket::bind("10.2.0.1:7000")?))?;
        inside.set_read_timeout(Some(Duration::from_secs(3)))?;
        let good = |text: &[u8]| wire::packet(POD_1, NODE_2, 7000, text);
        socket.send(&good(b"good"))?;
        let mut buffer = [0; 100];
        let (length, from) = inside.recv_from(&mut buffer)?;
        ensure!(&buffer[..length] == b"good" && from.ip() == POD_1, "{from}");
        let refused = pair.b.counters()?.rx_refused;
        // Sources that are the node's own, nobody's, another subnet's; destinations that are
        // the sender's own, nobody's.
        let bad = [
            (NODE_2, NODE_2),
            (Ipv4Addr::new(10, 3, 0, 1), NODE_2),
            (Ipv4Addr::new(192, 0, 2, 1), NODE_2),
            (POD_1, POD_1),
            (POD_1, Ipv4Addr::new(192, 0, 2, 2)),
            (POD_1, Ipv4Addr::new(127, 0, 0, 1)),
        ];
        for (source, destination) in bad {
            socket.send(&wire::packet(source, destination, 7000, b"bad"))?;
        }
        // From an address and from a port that are no peer's.
        let stranger = wire::socket(&pair.a.net, endpoint("192.0.2.1:9999"))?;
        stranger.send_to(&good(b"bad"), pair.outer(2))?;
        // Not one packet.
        for junk in [&good(b"bad")[..27], b"", b"\x45", &[0x60; 39], &[0xff; 1400]] {
            socket.send(junk)?;
        }
        let all = refused + bad.len() as u64 + 1 + 5;
        pair.b.until_count("all are refused", |counters| counters.rx_refused == all)?;
        socket.send(&good(b"last"))?;
        let length = inside.recv(&mut buffer)?;
        ensure!(&buffer[..length] == b"last", "a refused packet came through");
        Ok(())
    })
}

/// Garbage at the rate of two busy threads: nothing is taken, the process lives, and
/// traffic goes on right after.
#[test]
fn a_flood_of_garbage_disturbs_nobody_for_long() -> Result<()> {
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let before = pair.b.counters()?;
            let until = Instant::now() + Duration::from_secs(2);
            let target = pair.outer(2);
            let sent: u64 = std::thread::scope(|scope| {
                let floods: Vec<_> = (0..2u64)
                    .map(|seed| {
                        let net = &pair.a.net;
                        scope.spawn(move || -> Result<u64> {
                            let socket = wire::socket(net, endpoint("192.0.2.1:0"))?;
                            let (mut sent, mut state) = (0, seed + 1);
                            while Instant::now() < until {
                                for _ in 0..64 {
                                    let junk = junk(&mut state);
                                    let _ = socket.send_to(&junk, target);
                                    sent += 1;
                                }
                            }
                            Ok(sent)
                        })
                    })
                    .collect();
                floods.into_iter().map(|flood| flood.join().unwrap().unwrap()).sum()
            });
            ensure!(sent > 10_000, "only {sent}");
            pair.b.process.check_alive()?;
            let start = Instant::now();
            pair.ping()?;
            ensure!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            stream::both_ways(&pair.a.net, &pair.b.net, ip("10.2.0.1"), 1 << 20)?;
            let after = pair.b.counters()?;
            ensure!(after.rx_refused > before.rx_refused, "{after:?}");
            ensure!(!pair.b.log().contains("panicked"), "it panicked");
            Ok(())
        })?;
    }
    Ok(())
}

/// Headers that are nearly right more often than chance would make them.
fn junk(state: &mut u64) -> Vec<u8> {
    let mut next = || {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    };
    let length = [0, 1, 4, 20, 31, 32, 40, 64, 92, 148, 1400][(next() % 11) as usize];
    let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
    let first = [0x45, 0x4f, 0x60, 1, 2, 3, 4][(next() % 7) as usize];
    if let Some(byte) = bytes.first_mut() {
        *byte = first;
    }
    if first < 5 && bytes.len() > 8 {
        bytes[1..4].fill(0);
    }
    bytes
}

#[test]
fn requests_that_are_wrong_change_nothing_and_name_the_field() -> Result<()> {
    case(Pair::new(Backend::Udp, false)?, |pair| {
        let mut tunnel = pair.tunnel(1);
        tunnel.listen.clear();
        let error = block_on(pair.a.client.configure(&tunnel)).unwrap_err();
        let TunnelError::Invalid { violations, .. } = &error else { anyhow::bail!("{error:?}") };
        ensure!(violations[0].field == "tunnel.listen", "{violations:?}");
        // Not this node's address; nothing is lost by it.
        tunnel.listen = vec![endpoint("203.0.113.1:8285")];
        let error = block_on(pair.a.client.configure(&tunnel)).unwrap_err();
        ensure!(matches!(error, TunnelError::Taken { .. }), "{error:?}");
        // One of two peers is wrong: neither is set.
        let mut change = PeerChange { set: vec![pair.peer(3), pair.peer(2)], ..Default::default() };
        let netd_domain::overlay::TunnelPeer::Udp(_, third) = &mut change.set[0] else {
            anyhow::bail!("no udp peer")
        };
        third.subnets = [common::net("10.2.0.0/24")].into();
        let error = block_on(pair.a.client.update_peers(&common::device(), &change)).unwrap_err();
        let TunnelError::Invalid { violations, .. } = &error else { anyhow::bail!("{error:?}") };
        ensure!(violations[0].field.starts_with("set["), "{violations:?}");
        ensure!(pair.a.status()?.peers == 1);
        let other = "nosuch0".parse()?;
        let none = PeerChange {
            remove: vec![TunnelPeerName::Endpoint(pair.outer(2))],
            ..Default::default()
        };
        let error = block_on(pair.a.client.update_peers(&other, &none)).unwrap_err();
        ensure!(matches!(error, TunnelError::NoTunnel { .. }), "{error:?}");
        pair.ping()
    })
}

#[test]
fn a_device_or_an_address_of_another_programs_is_left_alone() -> Result<()> {
    case(Pair::bare(Backend::Udp, false, &["--queues", "1"])?, |pair| {
        pair.a.net.sh("ip link add flannel0 type bridge")?;
        let error = block_on(pair.a.client.configure(&pair.tunnel(1))).unwrap_err();
        ensure!(matches!(error, TunnelError::Taken { .. }), "{error:?}");
        block_on(pair.a.client.remove(&common::device()))?;
        pair.a.net.sh("ip link show flannel0 && ip link del flannel0")?;
        let taken = wire::socket(&pair.a.net, pair.outer(1))?;
        let error = block_on(pair.a.client.configure(&pair.tunnel(1))).unwrap_err();
        ensure!(matches!(error, TunnelError::PortTaken { .. }), "{error:?}");
        drop(taken);
        pair.a.configure(&pair.tunnel(1))?;
        // Another tunnel on the same address would take half of its datagrams.
        let second = netd::tunnel::Tunnel { device: "second0".parse()?, ..pair.tunnel(1) };
        let error = block_on(pair.a.client.configure(&second)).unwrap_err();
        ensure!(matches!(error, TunnelError::PortTaken { .. }), "{error:?}");
        Ok(())
    })
}

#[test]
fn another_user_is_turned_away() -> Result<()> {
    case(Pair::bare(Backend::Udp, false, &[])?, |pair| {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&pair.a.socket)?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
        // Even if a program opened the socket to all.
        std::fs::set_permissions(&pair.a.socket, std::fs::Permissions::from_mode(0o666))?;
        let socket = pair.a.socket.clone();
        let answered = std::thread::spawn(move || -> Result<usize> {
            // The thread alone becomes nobody: the C library's call would take all along.
            // SAFETY: a system call with three numbers.
            let became = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            ensure!(became == 0, "{}", std::io::Error::last_os_error());
            let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(common::SOON))?;
            Ok(stream.read(&mut [0; 100])?)
        });
        ensure!(answered.join().unwrap()? == 0, "it was answered");
        testbed::wait::until(common::SOON, "the log says so", || {
            ensure!(pair.a.log().contains("rejected a connection"));
            Ok(())
        })?;
        Ok(())
    })
}
