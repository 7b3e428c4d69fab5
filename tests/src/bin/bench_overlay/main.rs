//! `make bench-overlay`: a cluster of 10,000 nodes as one node sees it, and each backend
//! beside bare routing and beside the same set-up made by hand, in one run.
//!
//! `netd-bench-overlay scale|speed` does one of both. `NETD_BENCH_NODES` (10000),
//! `NETD_BENCH_ROUNDS` (3) and `NETD_BENCH_SECONDS` (3, of one iperf3) scale it.
//! `NETD_BENCH_BORINGTUN` is the path of `boringtun-cli` (`cargo install boringtun-cli`),
//! to be measured beside the wireguard backend.

mod boringtun;
mod handmade;
mod naive;
mod scale;
mod speed;
mod store;
mod usage;

use std::{env, fs, path::PathBuf, thread};

use anyhow::{Context as _, Result};

fn number(name: &str, default: usize) -> Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or("?");
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    format!("{cores} x {model}, Linux {}, load {load}", read("/proc/sys/kernel/osrelease").trim())
}

fn main() -> Result<()> {
    let what = env::args().nth(1).unwrap_or_default();
    println!("{}\n", machine());
    if what != "speed" {
        scale::run(number("NETD_BENCH_NODES", 10_000)?)?;
    }
    if what != "scale" {
        let boringtun = env::var_os("NETD_BENCH_BORINGTUN").map(PathBuf::from);
        let (rounds, seconds) = (number("NETD_BENCH_ROUNDS", 3)?, number("NETD_BENCH_SECONDS", 3)?);
        speed::run(rounds, seconds, boringtun.as_deref())?;
    }
    Ok(())
}
