//! iperf3 between two namespaces.

use std::{net::IpAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::{namespace::Namespace, service::Service, wait};

const PORT: u16 = 5201;

/// A server in a namespace, which serves one test at a time until it is dropped.
#[derive(Debug)]
pub struct Server {
    _service: Service,
}

impl Server {
    /// Starts it and waits until it listens. `directory` is one of the bed's, for its log.
    pub fn start(net: &Namespace, directory: &Path) -> Result<Self> {
        let mut command = net.command("iperf3");
        // The path of its pid file makes it known as the bed's.
        let pid = directory.join("iperf3.pid");
        command.args(["-s", "-p", &PORT.to_string(), "-I"]).arg(&pid);
        let service = Service::start("iperf3", command, &directory.join("iperf3.log"))?;
        wait::until(Duration::from_secs(3), "iperf3 listens", || {
            net.sh(&format!("ss -Hltn sport = :{PORT} | grep -q .")).map(drop)
        })?;
        Ok(Self { _service: service })
    }
}

/// What a test measured.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Bits a second that arrived.
    pub rate: f64,
    /// Processor time of both ends, seconds for each 10^9 bits: of the two processes, and of the
    /// kernel for them. What other threads do, as a tunnel's in userspace, is not in it.
    pub cpu_per_gbit: f64,
}

/// TCP from `from` to a [`Server`] at `to`, with so many streams.
pub fn tcp(from: &Namespace, to: IpAddr, streams: u32, seconds: u32) -> Result<Throughput> {
    let script = format!("iperf3 -J -c {to} -p {PORT} -P {streams} -t {seconds} -O 0.3");
    let json: Value = serde_json::from_str(&from.sh(&script)?)?;
    let end = &json["end"];
    let percent = |whose: &str| end["cpu_utilization_percent"][whose].as_f64();
    let cpu = percent("host_total").zip(percent("remote_total"));
    let rate = end["sum_received"]["bits_per_second"].as_f64();
    let (rate, (here, there)) = rate.zip(cpu).with_context(|| format!("iperf3 said {json}"))?;
    Ok(Throughput { rate, cpu_per_gbit: (here + there) / 100.0 / (rate / 1e9) })
}
