//! `make bench`: whole ADD and DEL as a runtime does them (exec of the plugin, its
//! environment, its standard input), netd-hook beside the bridge + host-local of Debian
//! 12 (1.1.1) and of the newest Debian (1.9), and what netd takes inside beside the
//! kernel's floor, all in the same run, with many pods attached already.
//!
//! `NETD_BENCH_PODS` ("0,100,500,1000") and `NETD_BENCH_SAMPLES` (64; the peers half)
//! scale it. `NETD_BENCH_AGAINST` names the directory of another release build of netd,
//! which then takes its turns too; with it the peers may be left out (`NETD_BENCH_PEERS=0`).

mod compare;
mod contender;
mod floor;
mod times;

use std::{env, fs, path::PathBuf, thread};

use anyhow::{Context as _, Result};
use compare::{Node, compare};
use contender::{CHUNK, Contender};
use netd_domain::Driver;
use testbed::{Bed, case, paths};

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

fn peers(bed: &Bed) -> Result<Vec<Contender>> {
    if env::var("NETD_BENCH_PEERS").is_ok_and(|value| value == "0") {
        return Ok(Vec::new());
    }
    let newest = paths::fetched("cni-1.9")?.join("usr/lib/cni");
    Ok(vec![
        Contender::peer("CNI 1.1.1", bed.host("peer")?, "/usr/lib/cni".into()),
        Contender::peer("CNI 1.9.1", bed.host("newest")?, newest),
    ])
}

/// Both drivers of this build, and of the other one where there is one.
fn nodes(bed: &Bed) -> Result<Vec<Node>> {
    let drivers = [Driver::Bridge, Driver::Routed];
    let mut nodes: Vec<Node> =
        drivers.into_iter().map(|driver| Node::start(bed, driver)).collect::<Result<_>>()?;
    if let Some(directory) = env::var_os("NETD_BENCH_AGAINST") {
        for driver in drivers {
            nodes.push(Node::start_other(bed, driver, directory.as_ref())?);
        }
    }
    Ok(nodes)
}

fn main() -> Result<()> {
    let (pods, rounds) = scale()?;
    case(|bed| {
        let mut peers = peers(bed)?;
        let mut nodes = nodes(bed)?;
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
                node.fill(count)?;
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
