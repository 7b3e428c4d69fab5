//! Many peers: what a change of one costs, and what a new process knows of them.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use common::{Backend, Pair, case, endpoint, net};
use netd::tunnel::{PeerChange, TunnelPeerName};
use netd_domain::overlay::{TunnelPeer, UdpPeer};

/// The peer of this number; `moved`: it has another subnet.
fn peer(pair: &Pair, number: u16, moved: bool) -> TunnelPeer {
    let (high, low) = (100 + number / 250 + if moved { 50 } else { 0 }, number % 250);
    let subnets = [net(&format!("10.{high}.{low}.0/24"))].into();
    let endpoint = endpoint(&format!("192.0.2.200:{}", 1000 + number));
    match pair.peer(2) {
        TunnelPeer::Udp(device, _) => TunnelPeer::Udp(device, UdpPeer { endpoint, subnets }),
        TunnelPeer::Wireguard(device, mut peer) => {
            peer.public_key = [7; 32];
            peer.public_key[..2].copy_from_slice(&number.to_be_bytes());
            (peer.endpoint, peer.allowed) = (endpoint, subnets);
            TunnelPeer::Wireguard(device, peer)
        }
    }
}

fn name(peer: &TunnelPeer) -> TunnelPeerName {
    match peer {
        TunnelPeer::Udp(_, peer) => TunnelPeerName::Endpoint(peer.endpoint),
        TunnelPeer::Wireguard(_, peer) => TunnelPeerName::Key(peer.public_key),
    }
}

/// How long changes of one peer at a time take.
fn changes(pair: &Pair) -> Result<Duration> {
    let start = Instant::now();
    for round in 0..100u16 {
        let set = vec![peer(pair, round % 50, round < 50)];
        pair.a.update(&PeerChange { set, ..Default::default() })?;
    }
    Ok(start.elapsed())
}

#[test]
fn a_change_costs_the_same_whatever_the_number_of_peers() -> Result<()> {
    const MANY: u16 = 10_000;
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let set = (0..50).map(|number| peer(pair, number, false)).collect();
            pair.a.update(&PeerChange { set, ..Default::default() })?;
            let few = changes(pair)?;
            let set = (50..MANY).map(|number| peer(pair, number, false)).collect();
            pair.a.update(&PeerChange { set, ..Default::default() })?;
            let many = changes(pair)?;
            eprintln!("{backend:?}: 100 changes of one of 51 peers: {few:?}, of 10,001: {many:?}");
            ensure!(many < few * 3 + Duration::from_millis(500), "{many:?}, with few {few:?}");
            pair.ping()?;
            // What a new process knows is the last change.
            let set = vec![peer(pair, 7, true)];
            let remove = vec![name(&peer(pair, 8, false))];
            pair.a.update(&PeerChange { set, remove, ..Default::default() })?;
            pair.a.kill_and_start()?;
            let status = pair.a.status()?;
            ensure!(status.peers == u32::from(MANY), "{status:?}");
            let taken = vec![peer(pair, 8, false)];
            pair.a.update(&PeerChange { set: taken, ..Default::default() })?;
            ensure!(pair.a.status()?.peers == u32::from(MANY) + 1);
            testbed::wait::until(common::SOON, "they find each other again", || pair.ping())?;
            Ok(())
        })?;
    }
    Ok(())
}
