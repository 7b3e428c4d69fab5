//! Throughput, processor time, latency and connections, side by side and as ratios of the same round.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::json;
use testbed::{
    Bed, Cluster, Namespace, Plan, Sandbox, case,
    cluster::Families,
    net::{
        iperf,
        rounds::{self, Rounds},
    },
};

use crate::{boringtun::Boringtun, handmade, naive::Naive};

const ROUND_TRIPS: usize = 5000;

/// Something that is measured.
struct Contender {
    name: &'static str,
    from: Namespace,
    to: Namespace,
    ip: IpAddr,
    seen: Vec<Figures>,
}

/// Gbit/s of one and of four streams, processor time for a Gbit of each, microseconds of a round
/// trip, connections a second.
#[derive(Debug, Clone, Copy)]
struct Figures {
    one: f64,
    four: f64,
    cpu_one: f64,
    cpu_four: f64,
    p50: f64,
    p99: f64,
    connections: f64,
}

impl Contender {
    fn new(name: &'static str, (from, to, ip): (&Namespace, &Namespace, IpAddr)) -> Self {
        let (from, to) = (Namespace::of(from.path()), Namespace::of(to.path()));
        Self { name, from, to, ip, seen: Vec::new() }
    }

    fn measure(&mut self, bed: &Bed, seconds: usize) -> Result<()> {
        let seconds = u32::try_from(seconds)?;
        let server = iperf::Server::start(&self.to, bed.directory())?;
        let one = iperf::tcp(&self.from, self.ip, 1, seconds)?;
        let four = iperf::tcp(&self.from, self.ip, 4, seconds)?;
        drop(server);
        let rounds = Rounds::make(&self.from, &self.to, self.ip, ROUND_TRIPS)?;
        let time = Duration::from_secs(1);
        self.seen.push(Figures {
            one: one.rate / 1e9,
            four: four.rate / 1e9,
            cpu_one: one.cpu_per_gbit,
            cpu_four: four.cpu_per_gbit,
            p50: rounds.percentile(50),
            p99: rounds.percentile(99),
            connections: rounds::connections(&self.from, &self.to, self.ip, time)?,
        });
        Ok(())
    }
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

pub(crate) fn run(rounds: usize, seconds: usize, boringtun: Option<&Path>) -> Result<()> {
    case(|bed| {
        let bare = handmade::bare(bed)?;
        let vxlan = handmade::vxlan(bed)?;
        let tracked = handmade::tracked_vxlan(bed)?;
        let host_gw = handmade::routes(bed)?;
        let naive = Naive::start(bed)?;
        let boringtun = boringtun.map(|program| Boringtun::start(bed, program)).transpose()?;
        let mut all = vec![
            Contender::new("bare underlay", (&bare.from, &bare.to, bare.ip)),
            Contender::new("vxlan by hand", (&vxlan.from, &vxlan.to, vxlan.ip)),
            Contender::new("vxlan by hand, NAT", (&tracked.from, &tracked.to, tracked.ip)),
            Contender::new("host-gw by hand", (&host_gw.from, &host_gw.to, host_gw.ip)),
            Contender::new("a packet a read", (&naive.from.net, &naive.to.net, naive.ip)),
        ];
        if let Some(Boringtun { way, .. }) = &boringtun {
            all.push(Contender::new("boringtun-cli", (&way.from, &way.to, way.ip)));
        }
        let (mut clusters, mut neighbours) = (Vec::new(), Vec::new());
        for (name, kind) in [
            ("netd vxlan", "vxlan"),
            ("netd host-gw", "host-gw"),
            ("netd host-gw, routed", "routed"),
            ("netd udp", "udp"),
            ("netd wireguard", "wireguard"),
        ] {
            let (cluster, pods) = pair(bed, kind)?;
            if kind == "host-gw" || kind == "routed" {
                let near = Sandbox::attached(&cluster.nodes[0].host, "near")?;
                let name = if kind == "routed" { "same node, routed" } else { "same node" };
                let from = pods.first().context("no pods")?;
                all.push(Contender::new(name, (&from.net, &near.net, near.v4()?)));
                neighbours.push(near);
            }
            let (from, to) = pods.first().zip(pods.last()).context("no pods")?;
            all.push(Contender::new(name, (&from.net, &to.net, to.v4()?)));
            clusters.push((cluster, pods));
        }
        for _ in 0..rounds {
            for contender in &mut all {
                contender.measure(bed, seconds).with_context(|| contender.name)?;
            }
        }
        print(&all, rounds, seconds);
        Ok(())
    })
}

/// Two nodes with a pod each; "routed": over host-gw. Clusters share the underlay, and nothing else.
fn pair(bed: &Bed, kind: &'static str) -> Result<(Cluster, Vec<Sandbox>)> {
    let (backend, driver) = if kind == "routed" { ("host-gw", "routed") } else { (kind, "bridge") };
    let plan = Plan::new(Families::V4, json!({"Type": backend})).nodes(2).named(kind);
    let plan = Plan { filter: "info", driver, ..plan };
    let cluster = Cluster::start(bed, &plan)?;
    let pods = cluster.pods()?;
    Ok((cluster, pods))
}

fn print(all: &[Contender], rounds: usize, seconds: usize) {
    println!("## Pod to pod on two nodes, {rounds} rounds of {seconds} s: medians\n");
    println!(
        "| | TCP 1 / 4, Gbit/s | of bare | bytes for processor time, of bare | round trip p50 / p99, us \
         | p50 of bare | connections/s | of bare |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let Some(bare) = all.first() else { return };
    for contender in all {
        let of = |get: fn(&Figures) -> f64| median(contender.seen.iter().map(get).collect());
        let ratio = |get: fn(&Figures) -> f64| {
            let pairs = contender.seen.iter().zip(&bare.seen);
            median(pairs.map(|(mine, bare)| get(mine) / get(bare)).collect())
        };
        // More bytes for the same processor time is better.
        let cheap = |get: fn(&Figures) -> f64| 1.0 / ratio(get);
        println!(
            "| {} | {:.2} / {:.2} | {:.2} / {:.2} | {:.2} / {:.2} | {:.1} / {:.1} | {:.2}x | {:.0} | {:.2} |",
            contender.name,
            of(|f| f.one),
            of(|f| f.four),
            ratio(|f| f.one),
            ratio(|f| f.four),
            cheap(|f| f.cpu_one),
            cheap(|f| f.cpu_four),
            of(|f| f.p50),
            of(|f| f.p99),
            ratio(|f| f.p50),
            of(|f| f.connections),
            ratio(|f| f.connections),
        );
    }
    println!();
    let find = |name: &str| all.iter().find(|c| c.name == name);
    for (mine, other, goal) in [
        ("netd vxlan", "vxlan by hand", "equal within noise"),
        ("netd vxlan", "vxlan by hand, NAT", "equal within noise"),
        ("netd host-gw", "host-gw by hand", "equal within noise"),
        ("netd udp", "a packet a read", "8x"),
        ("netd udp", "netd vxlan", "0.6x"),
        ("netd wireguard", "boringtun-cli", "0.9x"),
    ] {
        let Some((a, b)) = find(mine).zip(find(other)) else { continue };
        let ratio = |get: fn(&Figures) -> f64| {
            median(a.seen.iter().zip(&b.seen).map(|(a, b)| get(a) / get(b)).collect())
        };
        println!(
            "{mine} to {other}: {:.2}x with one stream, {:.2}x with four, round trip {:.2}x (to reach: {goal})",
            ratio(|f| f.one),
            ratio(|f| f.four),
            ratio(|f| f.p50),
        );
    }
}
