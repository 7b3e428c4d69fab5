//! Packets through two netd-tunnels, both backends, over IPv4 and IPv6.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use anyhow::{Result, ensure};
use common::{Backend, Pair, case, ip, net, stream};
use netd::tunnel::PeerChange;
use netd_domain::overlay::{TunnelPeer, UdpPeer};

const EVERY: [(Backend, bool); 4] = [
    (Backend::Udp, false),
    (Backend::Udp, true),
    (Backend::Wireguard, false),
    (Backend::Wireguard, true),
];

fn every(test: impl Fn(&mut Pair) -> Result<()>) -> Result<()> {
    for (backend, outer_v6) in EVERY {
        eprintln!("{backend:?}, outer IPv6: {outer_v6}");
        case(Pair::new(backend, outer_v6)?, &test)?;
    }
    Ok(())
}

#[test]
fn both_families_pass_over_both() -> Result<()> {
    every(|pair| {
        pair.ping()?;
        pair.b.until_count("all are counted", |counters| {
            counters.rx_packets >= 6 && counters.tx_packets >= 6 && counters.rx_refused == 0
        })
    })
}

#[test]
fn a_handshake_is_no_packet_and_what_waited_in_vain_is_counted() -> Result<()> {
    case(Pair::new(Backend::Wireguard, false)?, |pair| {
        let before = pair.a.counters()?;
        ensure!(before.tx_packets == 0, "nothing was sent yet: {before:?}");
        pair.a.net.sh("ping -n -c 3 -i 0.2 -W 2 10.2.0.1")?;
        pair.a.until_count("three packets each way", |c| c.tx_packets == 3 && c.rx_packets == 3)?;
        pair.b.until_count("and no handshake", |c| c.tx_packets == 3 && c.rx_packets == 3)?;
        // Nobody answers the handshake of a new process: 256 packets wait, and the rest is lost.
        pair.b.process.kill9()?;
        pair.a.kill_and_start()?;
        let socket = pair.a.net.run(|| Ok(std::net::UdpSocket::bind("10.1.0.1:0")?))?;
        let sent = (0..400).filter(|_| socket.send_to(b"x", "10.2.0.1:7000").is_ok()).count();
        ensure!(sent == 400, "{sent} packets were sent");
        pair.a.until_count("the rest is counted", |c| c.tx_dropped == 144 && c.tx_packets == 0)
    })
}

#[test]
fn the_largest_packet_passes_and_a_larger_one_fails_cleanly() -> Result<()> {
    every(|pair| {
        for (target, headers) in [("10.2.0.1", 28), ("fd00:2::1", 48)] {
            let size = pair.mtu() - headers;
            let ping = |size: u32| {
                pair.a.net.sh(&format!("ping -n -M do -c 2 -i 0.1 -W 2 -s {size} {target}"))
            };
            ping(size)?;
            let refused = ping(size + 1).unwrap_err().to_string();
            ensure!(refused.contains("too long") || refused.contains("too big"), "{refused}");
        }
        Ok(())
    })
}

#[test]
fn every_byte_of_bulk_tcp_is_right_both_ways_at_once() -> Result<()> {
    every(|pair| {
        for target in ["10.2.0.1", "fd00:2::1"] {
            stream::both_ways(&pair.a.net, &pair.b.net, ip(target), 48 << 20)?;
        }
        let counters = pair.b.counters()?;
        ensure!(counters.rx_bytes > 96 << 20, "{counters:?}");
        ensure!(counters.rx_refused == 0 && counters.tx_dropped == 0, "{counters:?}");
        Ok(())
    })
}

/// On node 2: what comes with DSCP EF, outside and inside, and with which mark.
fn watch_class(pair: &Pair, inner: &str, protocol: &str, mark: bool) -> Result<()> {
    let outer = if pair.outer_v6 { "ip6" } else { "ip" };
    let port = pair.outer(2).port();
    let congested = format!("iifname eth0 udp dport {port} {outer} ecn set ce");
    pair.b.net.sh(&format!(
        "nft -f - <<'END'
table inet class
delete table inet class
table inet class {{
  counter outside {{ }}
  counter inside {{ }}
  counter marked {{ }}
  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname eth0 udp dport {port} {outer} dscp ef {outer} ecn ect0 counter name outside
    {}
    iifname {device} meta l4proto {protocol} {inner} dscp ef {inner} ecn ect0 counter name inside
    iifname {device} meta l4proto {protocol} {inner} dscp ef {inner} ecn ce counter name marked
  }}
}}
END",
        if mark { &congested } else { "" },
        device = common::DEVICE,
    ))?;
    Ok(())
}

fn counted(pair: &Pair) -> Result<[u32; 3]> {
    let count = |name: &str| -> Result<u32> {
        let shown = pair.b.net.sh(&format!("nft list counter inet class {name}"))?;
        let packets = shown.split_whitespace().skip_while(|word| *word != "packets").nth(1);
        Ok(packets.unwrap_or_default().parse()?)
    };
    Ok([count("outside")?, count("inside")?, count("marked")?])
}

#[test]
fn dscp_and_ecn_go_outside_and_congestion_comes_back() -> Result<()> {
    every(|pair| {
        pair.ping()?;
        for (inner, protocol, target) in
            [("ip", "icmp", "10.2.0.1"), ("ip6", "ipv6-icmp", "fd00:2::1")]
        {
            let ping = |class: &str| {
                pair.a.net.sh(&format!("ping -n -c 5 -i 0.05 -W 1 -Q {class} {target}"))
            };
            watch_class(pair, inner, protocol, false)?;
            ping("0xba")?;
            let seen = counted(pair)?;
            ensure!(seen == [5, 5, 0], "EF and ECT(0): {seen:?}");
            // A router on the way is congested.
            watch_class(pair, inner, protocol, true)?;
            ping("0xba")?;
            let seen = counted(pair)?;
            ensure!(seen == [5, 0, 5], "congestion experienced: {seen:?}");
            // A sender that does not know ECN hears it by a loss.
            let before = pair.b.counters()?.rx_refused;
            ensure!(ping("0xb8").is_err(), "what can't be marked is dropped");
            pair.b.until_count("they are counted", |c| c.rx_refused == before + 5)?;
            ensure!(counted(pair)? == [5, 0, 5]);
        }
        Ok(())
    })
}

/// Segments of other sizes than the usual ones, also odd ones.
#[test]
fn bulk_tcp_is_right_with_odd_mtus_that_change_in_place() -> Result<()> {
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            for mtu in [1280, 1283, 1401, 1307] {
                for node in [&pair.a, &pair.b] {
                    node.net.sh(&format!("ip link set {} mtu {mtu}", common::DEVICE))?;
                }
                for target in ["10.2.0.1", "fd00:2::1"] {
                    stream::both_ways(&pair.a.net, &pair.b.net, ip(target), 4 << 20)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Larger than one packet, so that it is fragmented inside; and as QUIC sends, in trains.
#[test]
fn large_and_small_datagrams_pass() -> Result<()> {
    every(|pair| {
        for (target, size) in [("10.2.0.1", 20), ("10.2.0.1", 9000), ("fd00:2::1", 1200)] {
            let nets = (&pair.a.net, &pair.b.net);
            let pause = Duration::from_micros(500);
            let (sent, received) = stream::count_datagrams(nets, ip(target), size, pause, || {
                testbed::wait::pause(Duration::from_millis(300));
                Ok(())
            })?;
            ensure!(sent > 100 && received == sent, "{received} of {sent} of {size} bytes came");
        }
        Ok(())
    })
}

#[test]
fn trains_of_inner_udp_are_cut_right() -> Result<()> {
    every(|pair| {
        let a = pair.a.net.run(|| Ok(std::net::UdpSocket::bind("10.1.0.1:0")?))?;
        let b = pair.b.net.run(|| Ok(std::net::UdpSocket::bind("10.2.0.1:7000")?))?;
        b.set_read_timeout(Some(Duration::from_secs(2)))?;
        nix::sys::socket::setsockopt(&a, nix::sys::socket::sockopt::UdpGsoSegment, &1001)?;
        // 20 datagrams of 1001 bytes and one of 5, by one call.
        let payload: Vec<u8> = (0..20 * 1001 + 5).map(|i: u32| (i % 251) as u8).collect();
        a.send_to(&payload, "10.2.0.1:7000")?;
        let (mut got, mut buffer) = (Vec::<u8>::new(), [0; 2000]);
        while got.len() < payload.len() {
            let length = b.recv(&mut buffer)?;
            ensure!(length == 1001 || length == 5, "{length}");
            got.extend(&buffer[..length]);
        }
        ensure!(got == payload, "other bytes came");
        Ok(())
    })
}

#[test]
fn nothing_is_lost_while_peers_and_settings_change_around_it() -> Result<()> {
    for backend in [Backend::Udp, Backend::Wireguard] {
        case(Pair::new(backend, false)?, |pair| {
            pair.ping()?;
            let nets = (&pair.a.net, &pair.b.net);
            let pause = Duration::from_micros(300);
            let (sent, received) =
                stream::count_datagrams(nets, ip("10.2.0.1"), 1000, pause, || {
                    for round in 0..30u8 {
                        for node in [&pair.a, &pair.b] {
                            // The same again, twice; then others come and go.
                            node.configure(&pair.tunnel(node.number))?;
                            let same = vec![pair.peer(3 - node.number)];
                            node.update(&PeerChange { set: same.clone(), ..Default::default() })?;
                            node.update(&others(pair, node.number, round))?;
                            let only =
                                PeerChange { replace_all: true, set: same, ..Default::default() };
                            node.update(&only)?;
                            // Another listen address comes and goes, and another subnet.
                            let mut more = pair.tunnel(node.number);
                            more.listen.push(common::endpoint(&format!(
                                "[2001:db8::{}]:9000",
                                node.number
                            )));
                            more.subnets.push(net("10.99.0.0/24"));
                            node.configure(&more)?;
                        }
                    }
                    Ok(())
                })?;
            ensure!(sent > 1000 && received == sent, "{received} of {sent} came");
            Ok(())
        })?;
    }
    Ok(())
}

/// 500 more peers.
fn others(pair: &Pair, number: u8, round: u8) -> PeerChange {
    let peers = (0..500u16).map(|i| {
        let subnet = format!("10.{}.{}.0/24", 100 + i / 250, i % 250);
        let endpoint = common::endpoint(&format!("192.0.2.{}:{}", 100 + number, 1000 + i));
        match pair.peer(number) {
            TunnelPeer::Udp(device, _) => {
                TunnelPeer::Udp(device, UdpPeer { endpoint, subnets: [net(&subnet)].into() })
            }
            TunnelPeer::Wireguard(device, mut peer) => {
                peer.public_key = [round + 1; 32];
                peer.public_key[..2].copy_from_slice(&i.to_be_bytes());
                (peer.endpoint, peer.allowed) = (endpoint, [net(&subnet)].into());
                TunnelPeer::Wireguard(device, peer)
            }
        }
    });
    PeerChange { set: peers.collect(), ..Default::default() }
}
