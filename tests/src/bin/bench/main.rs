//! `make bench`: whole ADD and DEL as a runtime does them (exec of the plugin, its
//! environment, its standard input), netd-hook beside the bridge + host-local of Debian
//! 12 (1.1.1) and of the newest Debian (1.9), and what netd takes inside beside the
//! kernel's floor, all in the same run, with many pods attached already.
//!
//! `NETD_BENCH_PODS` ("0,100,500,1000") and `NETD_BENCH_SAMPLES` (64; the peers
//! half) scale it.

mod contender;
mod floor;
mod times;

use std::{env, fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use contender::{CHUNK, Contender, inside};
use floor::Floor;
use netd_domain::Driver;
use testbed::{Bed, Daemon, DaemonConfig, case, paths, wait};
use times::Times;

const AT_ONCE: usize = 8;

/// A netd of one driver, and the floor of the same wiring.
struct Node {
    contender: Contender,
    daemon: Daemon,
    floor: Floor,
}

impl Node {
    fn start(bed: &Bed, name: &'static str, driver: Driver) -> Result<Self> {
        let word = if driver == Driver::Bridge { "bridge" } else { "routed" };
        let host = bed.host(&format!("netd-{word}"))?;
        // As the peer: one family, one network.
        let networks = format!(
            "[[network]]\nname = \"default\"\ndriver = \"{word}\"\n\
             [[network.pool]]\nsubnet = \"10.88.0.0/16\"\n"
        );
        let config = DaemonConfig { networks, ..DaemonConfig::quiet() };
        let daemon = Daemon::start(&host, &config)?;
        let floor = Floor::new(bed.host(&format!("floor-{word}"))?, driver)?;
        Ok(Self { contender: Contender::netd(name, host)?, daemon, floor })
    }

    fn settled(daemon: &Daemon) -> Result<()> {
        wait::until(Duration::from_secs(10), "removed links are gone", || {
            let detaching = daemon.status()?.detaching;
            ensure!(detaching == 0, "{detaching} are not");
            Ok(())
        })?;
        Ok(())
    }
}

fn print(pods: usize, at_once: usize, who: &str, row: &Row, inside: &str) {
    let Row { add, del, .. } = row;
    println!(
        "| {pods} | {at_once} | {who} | {:.2} / {:.2} | {:.0} | {:.2} / {:.2} | {:.0} | {inside} |",
        add.percentile(50),
        add.percentile(99),
        add.rate(),
        del.percentile(50),
        del.percentile(99),
        del.rate(),
    );
}

/// What was measured of one contender.
#[derive(Default)]
struct Row {
    add: Times,
    del: Times,
    floor: Times,
}

impl Row {
    fn extend(&mut self, [add, del]: [Times; 2]) {
        self.add.extend(add);
        self.del.extend(del);
    }
}

/// In turns, some pods each: the machine's moods pass over all of them alike.
fn measure(
    peers: &mut [Contender],
    nodes: &mut [Node],
    at_once: usize,
    rounds: usize,
) -> Result<[Vec<Row>; 2]> {
    let rows = |count: usize| (0..count).map(|_| Row::default()).collect::<Vec<_>>();
    let (mut theirs, mut ours) = (rows(peers.len()), rows(nodes.len()));
    for round in 0..rounds {
        // They take most of the run's time.
        if round % 2 == 0 {
            for (peer, row) in peers.iter_mut().zip(&mut theirs) {
                row.extend(peer.sample(at_once, || Ok(()))?);
            }
        }
        for (node, row) in nodes.iter_mut().zip(&mut ours) {
            let daemon = &node.daemon;
            row.extend(node.contender.sample(at_once, || Node::settled(daemon))?);
            if at_once == 1 {
                row.floor.extend(node.floor.sample()?);
            }
        }
    }
    Ok([theirs, ours])
}

fn compare(peers: &mut [Contender], nodes: &mut [Node], pods: usize, rounds: usize) -> Result<()> {
    for at_once in [1, AT_ONCE] {
        let [theirs, ours] = measure(peers, nodes, at_once, rounds)?;
        for (peer, row) in peers.iter().zip(&theirs) {
            print(pods, at_once, peer.name, row, "");
        }
        for (node, row) in nodes.iter().zip(&ours) {
            let took = inside(&node.daemon, rounds * CHUNK).unwrap_or_default();
            let mut note = format!("{took:.2}");
            if at_once == 1 {
                let floor = row.floor.percentile(50);
                note = format!("{took:.2}, floor {floor:.2}: {:.1}x", took / floor);
            }
            print(pods, at_once, node.contender.name, row, &note);
            let ratios = |median: fn(&Row) -> f64| {
                let each = theirs.iter().map(|t| format!("{:.1}x", median(t) / median(row)));
                each.collect::<Vec<_>>().join(", ")
            };
            let (add, del) = (ratios(|r| r.add.percentile(50)), ratios(|r| r.del.percentile(50)));
            println!("| | | *faster by* | **{add}** | | **{del}** | | |");
        }
    }
    Ok(())
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
    Ok(number.parse()?)
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} x {model}, Linux {}", read("/proc/sys/kernel/osrelease").trim())
}

/// How many pods are attached, and how many rounds are made with each.
fn scale() -> Result<(Vec<usize>, usize)> {
    let pods = env::var("NETD_BENCH_PODS").unwrap_or_else(|_| "0,100,500,1000".to_owned());
    let pods: Result<Vec<usize>, _> = pods.split(',').map(str::parse).collect();
    let samples = env::var("NETD_BENCH_SAMPLES").unwrap_or_else(|_| "64".to_owned());
    let samples: usize = samples.parse().context("NETD_BENCH_SAMPLES")?;
    // Two at least: the peers have every other one.
    Ok((pods.context("NETD_BENCH_PODS")?, samples.div_ceil(CHUNK).max(2)))
}

fn main() -> Result<()> {
    let (pods, rounds) = scale()?;
    case(|bed| {
        let newest = paths::fetched("cni-1.9")?.join("usr/lib/cni");
        let mut peers = [
            Contender::peer("CNI 1.1.1", bed.host("peer")?, "/usr/lib/cni".into()),
            Contender::peer("CNI 1.9.1", bed.host("newest")?, newest),
        ];
        let mut nodes = [
            Node::start(bed, "netd, bridge", Driver::Bridge)?,
            Node::start(bed, "netd, routed", Driver::Routed)?,
        ];
        println!("{}; IPv4; {} samples a row, the peers half\n", machine(), rounds * CHUNK);
        println!(
            "| pods attached | at once | | ADD p50 / p99 ms | ADD/s | DEL p50 / p99 ms | DEL/s \
             | inside netd, ADD p50 ms |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for &count in &pods {
            for peer in &mut peers {
                peer.fill(count)?;
            }
            for node in &mut nodes {
                node.contender.fill(count)?;
                node.floor.fill(count)?;
            }
            compare(&mut peers, &mut nodes, count, rounds)?;
        }
        println!();
        for node in &nodes {
            let (endpoints, resident) =
                (node.daemon.endpoints()?.len(), resident_kib(node.daemon.pid())?);
            println!("{} holds {resident} KiB with {endpoints} endpoints;", node.contender.name);
        }
        let size = |path: PathBuf| Ok::<_, anyhow::Error>(fs::metadata(path)?.len() / 1024);
        let (hook, plugin) = (size(paths::built("netd-hook")?)?, size(paths::plugin()?)?);
        println!("netd-hook is {hook} KiB, the plugin {plugin} KiB.");
        Ok(())
    })
}
