//! Garbage at the ports of the userspace backends, as fast as it can be sent: it is
//! counted, and disturbs nobody beyond the processor time that it takes.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use testbed::{
    Bed, Cluster, Plan, Sandbox, case,
    cluster::{Families, traffic::AllPairs},
    net::{
        probe,
        raw::{self, Raw},
    },
    wait,
};

use super::{SOON, backend, pings};

const LENGTH: Duration = Duration::from_secs(3);
/// Lines that a log may have more afterwards: of periodic things, not of packets.
const CALM: usize = 30;

#[test]
fn udp_garbage_is_counted_and_disturbs_nobody() -> Result<()> {
    flooded("udp", 8285)
}

#[test]
fn wireguard_garbage_is_counted_and_disturbs_nobody() -> Result<()> {
    flooded("wireguard", 51820)
}

fn flooded(kind: &str, port: u16) -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend(kind)).nodes(2))?;
        let pods = cluster.pods()?;
        let all: Vec<&Sandbox> = pods.iter().collect();
        pings(&pods[0], &pods[1])?;
        let before = Seen::of(&cluster)?;
        let (sent, meanwhile) = flood(bed, &cluster, &pods, port)?;
        println!("{kind}: {sent} pieces of garbage in {LENGTH:?}; meanwhile {meanwhile:?}");
        ensure!(sent > 20_000, "only {sent} in {LENGTH:?}");
        // What has no room beside the garbage is lost; most goes through.
        ensure!(meanwhile.answered > 3 && meanwhile.answered >= meanwhile.lost, "{meanwhile:?}");
        wait::until(SOON, "it is counted", || {
            let refused = Seen::of(&cluster)?.refused - before.refused;
            // The rest had no room in the socket's buffer.
            ensure!(refused > 5000.0, "only {refused} were refused of {sent}");
            Ok(())
        })?;
        let after = Seen::of(&cluster)?;
        for ((name, lines), (_, old)) in after.logs.iter().zip(&before.logs) {
            ensure!(lines - old < CALM, "{name} has {} lines more", lines - old);
        }
        let calm = AllPairs::start(&all, 100)?;
        wait::pause(Duration::from_secs(1));
        calm.finish_without_loss("after the garbage")?;
        for node in &mut cluster.nodes {
            ensure!(node.netd.status()?.ready, "{} is not ready", node.host.name);
            node.tunnel.as_mut().context("no tunnel")?.check_alive()?;
        }
        Ok(())
    })
}

/// What is there to be seen of garbage on the first node.
struct Seen {
    refused: f64,
    /// Lines of each.
    logs: [(&'static str, usize); 2],
}

/// Of the second node's pod to the first one's.
#[derive(Debug, Default)]
struct Pings {
    answered: u64,
    lost: u64,
}

impl Seen {
    fn of(cluster: &Cluster) -> Result<Self> {
        let node = cluster.nodes.first().context("no node")?;
        let tunnel = fs::read_to_string(node.tunnel.as_ref().context("no tunnel")?.log())?;
        let logs = [("netd-tunnel", tunnel), ("netd", node.netd.logged())];
        let refused = ["flannel0", "flannel-wg"].map(|device| {
            let labels = format!("device=\"{device}\",direction=\"received\",reason=\"refused\"");
            node.metric(&format!("netd_tunnel_packets_lost_total{{{labels}"))
        });
        let refused = refused.into_iter().sum::<Result<f64>>()?;
        Ok(Self { refused, logs: logs.map(|(name, log)| (name, log.lines().count())) })
    }
}

/// Sends to the first node for a while, as a stranger and with the second node's address,
/// while its pod pings the first one's. How much was sent, and what became of the pings.
fn flood(bed: &Bed, cluster: &Cluster, pods: &[Sandbox], port: u16) -> Result<(u64, Pings)> {
    let stranger = bed.host("stranger")?;
    let [target, peer] = &cluster.nodes[..] else { return Err(anyhow!("not two nodes")) };
    let (here, there) = pods.first().zip(pods.last()).context("no pods")?;
    let macs = (raw::mac_of(&stranger.net, "eth0")?, raw::mac_of(&target.host.net, "eth0")?);
    let ips = (peer.host.v4, target.host.v4);
    let tap = Raw::open(&stranger.net, "eth0")?;
    let socket = stranger.net.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    let until = Instant::now() + LENGTH;
    let pods = (octets(here)?, octets(there)?);
    let (mut forged, mut foreign) = (Garbage::new(1, pods), Garbage::new(2, pods));
    thread::scope(|scope| {
        // With the peer's own address and port.
        let forging = scope.spawn(move || {
            let frames = |garbage: &mut Garbage| {
                let mut piece = garbage.next();
                piece.truncate(1400);
                raw::udp4(macs, ips, port, &piece)
            };
            let frames: Vec<_> = (0..1024).map(|_| frames(&mut forged)).collect();
            cycle(until, &frames, |frame| tap.send(frame).is_ok())
        });
        let shouting = scope.spawn(move || {
            let pieces: Vec<_> = (0..1024).map(|_| foreign.next()).collect();
            cycle(until, &pieces, |piece| socket.send_to(piece, (ips.1, port)).is_ok())
        });
        let mut pings = Pings::default();
        while Instant::now() < until {
            match probe::ping(&there.net, here.v4()?) {
                Ok(()) => pings.answered += 1,
                Err(_) => pings.lost += 1,
            }
            wait::pause(Duration::from_millis(20));
        }
        let joined = [forging.join(), shouting.join()];
        let sent = joined.into_iter().map(|sent| sent.map_err(|_| anyhow!("panicked")));
        Ok((sent.sum::<Result<u64>>()?, pings))
    })
}

fn octets(pod: &Sandbox) -> Result<[u8; 4]> {
    match pod.v4()? {
        IpAddr::V4(ip) => Ok(ip.octets()),
        IpAddr::V6(ip) => Err(anyhow!("{ip} is no IPv4 address")),
    }
}

fn cycle(until: Instant, all: &[Vec<u8>], send: impl Fn(&[u8]) -> bool) -> u64 {
    let mut sent = 0;
    while Instant::now() < until {
        sent += all.iter().take(64).chain(all).filter(|one| send(one)).count() as u64;
    }
    sent
}

/// Bytes that are nothing, or nearly something.
struct Garbage {
    state: u64,
    /// Addresses of the pods: the node's, and the peer's.
    pods: ([u8; 4], [u8; 4]),
}

impl Garbage {
    fn new(seed: u64, pods: ([u8; 4], [u8; 4])) -> Self {
        Self { state: seed, pods }
    }

    /// As in Knuth's MMIX.
    fn number(&mut self, below: usize) -> usize {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) as usize % below
    }

    fn next(&mut self) -> Vec<u8> {
        let lengths = [0, 1, 4, 19, 20, 28, 31, 32, 40, 64, 92, 148, 576, 1400, 9000, 65_000];
        // Large ones come in fragments, and take as long as many small ones.
        let most = if self.number(50) == 0 { lengths.len() } else { lengths.len() - 2 };
        let length = lengths[self.number(most)];
        let mut piece: Vec<u8> = (0..length).map(|_| self.number(256) as u8).collect();
        match self.number(4) {
            // Anything.
            0 => {}
            // A WireGuard message by its type.
            1 => {
                let kind = 1 + self.number(4) as u8;
                piece.iter_mut().zip([kind, 0, 0, 0]).for_each(|(to, from)| *to = from);
            }
            // An IPv4 packet whose length lies, or is cut short.
            2 => {
                let head = [0x45, 0, self.number(256) as u8, 77];
                piece.iter_mut().zip(head).for_each(|(to, from)| *to = from);
            }
            // A whole one, from an address that is not behind the peer, or to another node.
            _ => self.packet(&mut piece),
        }
        piece
    }

    fn packet(&mut self, piece: &mut [u8]) {
        let Ok(length) = u16::try_from(piece.len()) else { return };
        let (here, there) = self.pods;
        let foreign = [8, 8, 8, 8];
        let ways = [(foreign, here), (here, here), (there, foreign), (here, there)];
        let (source, destination) = ways[self.number(ways.len())];
        let mut header = vec![0x45, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 1, 0, 0, 64, 17, 0, 0]);
        header.extend(source);
        header.extend(destination);
        piece.iter_mut().zip(header).for_each(|(to, from)| *to = from);
    }
}
