//! `make bench`: whole ADD and DEL as a runtime does them (exec of the plugin, its
//! environment, its standard input), netd-hook beside the bridge + host-local of Debian
//! 12 (1.1.1) and of the newest Debian (1.9), and what netd takes inside beside the
//! kernel's floor, all in the same run, with many pods attached already.
//!
//! `NETD_BENCH_PODS` ("0,100,500,1000") and `NETD_BENCH_SAMPLES` (64) scale it.

mod contender;
mod floor;
mod times;

use std::{env, fs, path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use contender::{Contender, inside};
use floor::Floor;
use netd::domain::Driver;
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

fn row(pods: usize, at_once: usize, who: &str, times: &[Times; 2], inside: &str) {
    let [add, del] = times;
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

fn compare(peers: &mut [Contender], nodes: &mut [Node], pods: usize, samples: usize) -> Result<()> {
    for at_once in [1, AT_ONCE] {
        let mut theirs = Vec::new();
        for peer in peers.iter_mut() {
            // They take most of the run's time.
            let times = peer.sample(samples.div_ceil(2), at_once, || Ok(()))?;
            row(pods, at_once, peer.name, &times, "");
            theirs.push(times);
        }
        for node in nodes.iter_mut() {
            let daemon = &node.daemon;
            let ours = node.contender.sample(samples, at_once, || Node::settled(daemon))?;
            let took = inside(daemon, samples).unwrap_or_default();
            let mut note = format!("{took:.2}");
            if at_once == 1 {
                let floor = node.floor.sample(samples)?.percentile(50);
                note = format!("{took:.2}, floor {floor:.2}: {:.1}x", took / floor);
            }
            row(pods, at_once, node.contender.name, &ours, &note);
            let ratios = |which: usize| {
                let mine = ours[which].percentile(50);
                let each = theirs.iter().map(|t| format!("{:.1}x", t[which].percentile(50) / mine));
                each.collect::<Vec<_>>().join(", ")
            };
            println!("| | | *faster by* | **{}** | | **{}** | | |", ratios(0), ratios(1));
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

fn scale() -> Result<(Vec<usize>, usize)> {
    let pods = env::var("NETD_BENCH_PODS").unwrap_or_else(|_| "0,100,500,1000".to_owned());
    let pods: Result<Vec<usize>, _> = pods.split(',').map(str::parse).collect();
    let samples = env::var("NETD_BENCH_SAMPLES").unwrap_or_else(|_| "64".to_owned());
    Ok((pods.context("NETD_BENCH_PODS")?, samples.parse().context("NETD_BENCH_SAMPLES")?))
}

fn main() -> Result<()> {
    let (pods, samples) = scale()?;
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
        println!("{}; IPv4; {samples} samples a row\n", machine());
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
            compare(&mut peers, &mut nodes, count, samples)?;
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
