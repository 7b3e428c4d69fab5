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

/// TCP from `from` to a [`Server`] at `to`, with so many streams: bits a second that arrived.
pub fn tcp(from: &Namespace, to: IpAddr, streams: u32, seconds: u32) -> Result<f64> {
    let script = format!("iperf3 -J -c {to} -p {PORT} -P {streams} -t {seconds} -O 0.3");
    let json: Value = serde_json::from_str(&from.sh(&script)?)?;
    let rate = json["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.with_context(|| format!("iperf3 said {json}"))
}
