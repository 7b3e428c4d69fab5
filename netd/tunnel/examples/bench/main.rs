//! Throughput of the userspace backends beside what they compete with, in one run:
//!
//! cargo run --release -p netd-tunnel --example bench -- [SECONDS] [BORINGTUN-CLI]
//!
//! Two namespaces on a veth, iperf3 with 1 and 4 streams. naive: one packet a read of
//! the tun device and one datagram each. boringtun: its own command, if a path is given.
//! `MODES=vxlan,udp` measures only these.

mod naive;
mod setup;

use std::time::Duration;

use anyhow::{Context as _, Result};
use setup::{Bench, Node};

/// One way through the tunnel.
struct Mode {
    name: &'static str,
    start: fn(&Bench, &Node, &Node) -> Result<setup::Running>,
}

const MODES: [Mode; 6] = [
    Mode { name: "bare", start: setup::bare },
    Mode { name: "vxlan", start: setup::vxlan },
    Mode { name: "naive", start: naive::start },
    Mode { name: "udp", start: setup::udp },
    Mode { name: "boringtun", start: setup::boringtun },
    Mode { name: "wireguard", start: setup::wireguard },
];

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some("--naive") {
        return naive::run();
    }
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let bench = Bench::new(seconds, arguments.next())?;
    let mut found = vec![];
    let wanted = std::env::var("MODES").unwrap_or_default();
    let is_wanted = |mode: &Mode| wanted.is_empty() || wanted.split(',').any(|w| w == mode.name);
    for mode in MODES.into_iter().filter(is_wanted) {
        if mode.name == "boringtun" && bench.boringtun.is_none() {
            continue;
        }
        let nodes = bench.nodes()?;
        let running = (mode.start)(&bench, &nodes.0, &nodes.1).context(mode.name)?;
        bench.wait_for(&nodes.0, Duration::from_secs(10)).context(mode.name)?;
        let one = bench.iperf(&nodes.0, &nodes.1, 1).context(mode.name)?;
        let four = bench.iperf(&nodes.0, &nodes.1, 4).context(mode.name)?;
        let latency = bench.ping(&nodes.0).context(mode.name)?;
        println!("{:<10} {one:>6.2} {four:>6.2} Gb/s   rtt {latency} ms", mode.name);
        found.push((mode.name, one, four));
        drop(running);
    }
    for (what, of) in [("udp", "naive"), ("udp", "vxlan"), ("wireguard", "boringtun")] {
        let of_all = |name: &str| found.iter().find(|(n, ..)| *n == name);
        if let (Some(a), Some(b)) = (of_all(what), of_all(of)) {
            println!("{what} / {of}: {:.2} with 1 stream, {:.2} with 4", a.1 / b.1, a.2 / b.2);
        }
    }
    Ok(())
}
