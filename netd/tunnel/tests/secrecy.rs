//! WireGuard: who takes part, and that nobody else reads along.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use common::{Backend, DEVICE, Pair, case, endpoint, ip, keys, stream, wire};
use netd::tunnel::{PeerChange, TunnelKind, TunnelPeerName};
use netd_domain::overlay::{SecretKey, TunnelPeer, WireguardPeer};

fn with(pair: &Pair, number: u8, change: impl FnOnce(&mut WireguardPeer)) -> Result<PeerChange> {
    let mut peer = pair.peer(number);
    let TunnelPeer::Wireguard(_, wireguard) = &mut peer else { anyhow::bail!("no wireguard") };
    change(wireguard);
    Ok(PeerChange { set: vec![peer], ..Default::default() })
}

#[test]
fn no_plaintext_is_on_the_cable() -> Result<()> {
    const NEEDLE: &[u8] = b"nobody may read this line";
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let directory = pair.a.socket.parent().context("no parent")?.to_owned();
            let capture = wire::Capture::start(&pair.a.net, directory)?;
            let inside = pair.b.net.run(|| Ok(UdpSocket::bind("10.2.0.1:7000")?))?;
            inside.set_read_timeout(Some(common::SOON))?;
            let sender = pair.a.net.run(|| Ok(UdpSocket::bind("10.1.0.1:0")?))?;
            for _ in 0..50 {
                sender.send_to(&NEEDLE.repeat(20), "10.2.0.1:7000")?;
                inside.recv(&mut [0; 1000])?;
            }
            stream::both_ways(&pair.a.net, &pair.b.net, ip("10.2.0.1"), 1 << 20)?;
            let captured = capture.end()?;
            ensure!(captured.len() > 1 << 20, "only {} bytes were captured", captured.len());
            let found = wire::contains(&captured, NEEDLE);
            // The udp backend shows that the capture would have it.
            ensure!(found == (backend == Backend::Udp), "plaintext found: {found}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Whatever happens to sessions: packets wait or are dropped, never sent as they are.
#[test]
fn no_plaintext_without_a_session_either() -> Result<()> {
    const NEEDLE: &[u8] = b"not even without a session";
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        let directory = pair.a.socket.parent().context("no parent")?.to_owned();
        let capture = wire::Capture::start(&pair.a.net, directory)?;
        pair.b.process.kill9()?;
        let sender = pair.a.net.run(|| Ok(UdpSocket::bind("10.1.0.1:0")?))?;
        for round in 0..4 {
            for _ in 0..100 {
                let _ = sender.send_to(&NEEDLE.repeat(20), "10.2.0.1:7000");
            }
            match round {
                0 => pair.b.start_again()?,
                1 => pair.a.kill_and_start()?,
                2 => pair.a.update(&with(pair, 2, |p| p.preshared_key = None)?)?,
                _ => {
                    let name = TunnelPeerName::Key(keys(2).1);
                    pair.a.update(&PeerChange { remove: vec![name], ..Default::default() })?;
                }
            }
            testbed::wait::pause(Duration::from_millis(200));
        }
        let captured = capture.end()?;
        ensure!(captured.len() > 1000, "only {} bytes were captured", captured.len());
        ensure!(!wire::contains(&captured, NEEDLE), "plaintext on the cable");
        Ok(())
    })
}

#[test]
fn another_preshared_key_keeps_it_silent_and_the_right_one_mends_it() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.ping()?;
        ensure!(pair.a.status()?.sessions == 1);
        pair.a.update(&with(pair, 2, |peer| peer.preshared_key = Some(SecretKey([8; 32])))?)?;
        pair.silent()?;
        ensure!(pair.a.status()?.sessions == 0);
        // A new session: both sides have been told. The next try is after 5 seconds.
        pair.b.update(&with(pair, 1, |peer| peer.preshared_key = Some(SecretKey([8; 32])))?)?;
        testbed::wait::until(common::SOON, "a session", || pair.ping())?;
        ensure!(pair.a.status()?.sessions == 1);
        Ok(())
    })
}

#[test]
fn a_new_private_key_makes_new_sessions() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.ping()?;
        let mut tunnel = pair.tunnel(2);
        tunnel.kind = TunnelKind::Wireguard(keys(7).0);
        pair.b.configure(&tunnel)?;
        ensure!(pair.b.status()?.peers == 1, "the peers went with the key");
        pair.silent()?;
        let mut change = with(pair, 2, |peer| peer.public_key = keys(7).1)?;
        change.replace_all = true;
        pair.a.update(&change)?;
        pair.ping()
    })
}

/// A peer that sends with another's address, and one that nobody knows.
#[test]
fn only_allowed_addresses_of_known_peers_pass() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.ping()?;
        let inside = pair.b.net.run(|| Ok(UdpSocket::bind("10.2.0.1:7000")?))?;
        inside.set_read_timeout(Some(Duration::from_millis(500)))?;
        pair.a.net.sh(&format!("ip address add 10.3.0.1/32 dev {DEVICE}"))?;
        let before = pair.b.counters()?.rx_refused;
        let wrong = pair.a.net.run(|| Ok(UdpSocket::bind("10.3.0.1:0")?))?;
        wrong.send_to(b"wrong source", "10.2.0.1:7000")?;
        pair.b.until_count("it is refused", |counters| counters.rx_refused == before + 1)?;
        ensure!(inside.recv(&mut [0; 100]).is_err(), "it came through");
        let name = TunnelPeerName::Key(keys(1).1);
        pair.b.update(&PeerChange { remove: vec![name], ..Default::default() })?;
        pair.silent()?;
        ensure!(pair.b.counters()?.rx_refused > before + 1);
        Ok(())
    })
}

/// The peer's address changes: both find it by what it sends.
#[test]
fn a_peer_may_move() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.ping()?;
        let mut tunnel = pair.tunnel(1);
        tunnel.listen = vec![endpoint("192.0.2.1:9999")];
        pair.a.configure(&tunnel)?;
        pair.ping()?;
        // And the other way: node 2 sends to where node 1 now is.
        pair.b.net.sh("ping -n -c 2 -i 0.1 -W 2 10.1.0.1")?;
        // What netd says again does not take it back.
        let same = PeerChange { set: vec![pair.peer(1)], ..Default::default() };
        pair.b.update(&same)?;
        pair.b.net.sh("ping -n -c 2 -i 0.1 -W 2 10.1.0.1")?;
        Ok(())
    })
}

/// Keepalives make and keep a session without traffic.
#[test]
fn keepalive_begins_by_itself() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.a.update(&with(pair, 2, |peer| peer.keepalive = 1)?)?;
        testbed::wait::until(common::SOON, "a session without traffic", || {
            ensure!(pair.b.status()?.sessions == 1);
            Ok(())
        })?;
        Ok(())
    })
}

/// Handshakes that anybody who knows the public key can send, more than can be answered:
/// the sender has to prove its address, data goes on, and a real peer still gets in.
#[test]
fn a_flood_of_handshakes_is_answered_with_cookies() -> Result<()> {
    use boringtun::{
        noise::{Tunn, TunnResult},
        x25519::{PublicKey, StaticSecret},
    };
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        pair.ping()?;
        let socket = wire::socket(&pair.a.net, endpoint("192.0.2.1:0"))?;
        socket.set_nonblocking(true)?;
        let (target, public) = (pair.outer(2), PublicKey::from(keys(2).1));
        let (start, mut cookies) = (Instant::now(), 0);
        let mut buffer = [0; 2000];
        while start.elapsed() < Duration::from_secs(2) {
            let stranger = StaticSecret::from([start.elapsed().subsec_micros() as u8; 32]);
            let mut tunn = Tunn::new(stranger, public, None, None, 1, None);
            let mut message = [0; 200];
            if let TunnResult::WriteToNetwork(first) =
                tunn.format_handshake_initiation(&mut message, true)
            {
                for _ in 0..20 {
                    let _ = socket.send_to(first, target);
                }
            }
            while let Ok(length) = socket.recv(&mut buffer) {
                cookies += usize::from(length == 64 && buffer[0] == 3);
            }
        }
        ensure!(cookies > 100, "only {cookies} cookies");
        pair.ping()?;
        // A new handshake under load goes by a cookie.
        pair.a.kill_and_start()?;
        testbed::wait::until(common::SOON, "a session", || pair.ping())?;
        Ok(())
    })
}
