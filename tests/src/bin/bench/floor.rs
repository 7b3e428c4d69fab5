//! The kernel's floor: the same endpoints by raw netlink in this process, without
//! addresses being chosen, records, rules, checks or anybody to tell.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use anyhow::{Context as _, Result};
use netd_dataplane::netlink::{Protocol, Socket};
use netd_domain::{
    AttachSpec, Driver, EndpointKey, Network, Pool, Wiring, attach::Assigned,
    network::NetworkOptions,
};
use testbed::{Host, Namespace, raw_netlink, wait};

use crate::{
    contender::{CHUNK, CLEAN_UP},
    times::Times,
};

/// Indexes that no device of the bed has.
const BRIDGE_INDEX: u32 = 99_999;
const FIRST_INDEX: u32 = 100_000;

pub(crate) struct Floor {
    host: Host,
    network: Network,
    socket: Socket,
    bridge: Option<u32>,
    pods: Vec<Namespace>,
    made: u32,
}

impl Floor {
    pub(crate) fn new(host: Host, driver: Driver) -> Result<Self> {
        let pool = Pool::new("10.98.0.0/16".parse()?, None, (None, None), Vec::new())?;
        let options = NetworkOptions { driver, ..NetworkOptions::default() };
        let network = Network::new("default".parse()?, vec![pool], options)?;
        let mut socket = host.net.run(|| Ok(Socket::open(Protocol::Route)?))?;
        let bridge = network.wiring(1500).bridge;
        if let Some(bridge) = &bridge {
            raw_netlink::bridge(&mut socket, bridge, 1500, BRIDGE_INDEX)?;
        }
        let bridge = bridge.map(|_| BRIDGE_INDEX);
        Ok(Self { host, network, socket, bridge, pods: Vec::new(), made: 0 })
    }

    /// Attaches until `count` pods stay.
    pub(crate) fn fill(&mut self, count: usize) -> Result<()> {
        let more = count.saturating_sub(self.pods.len());
        let (_, pods) = self.attach(more)?;
        self.pods.extend(pods);
        Ok(())
    }

    /// Attaches of [`CHUNK`] more pods, which are gone when this returns.
    pub(crate) fn sample(&mut self) -> Result<Times> {
        let (times, pods) = self.attach(CHUNK)?;
        let index = FIRST_INDEX + self.made;
        let gone = (0..pods.len()).map(|n| format!("link delete dev {}", name(index, n)));
        let script: Vec<String> = gone.collect();
        self.host.net.sh(&format!("ip -batch - <<'E'\n{}\nE", script.join("\n")))?;
        drop(pods);
        wait::pause(CLEAN_UP);
        Ok(times)
    }

    fn attach(&mut self, count: usize) -> Result<(Times, Vec<Namespace>)> {
        let mut each = Vec::new();
        let mut pods = Vec::new();
        for _ in 0..count {
            self.made += 1;
            let path = self.host.directory().join(format!("floor-{}", self.made));
            let pod = Namespace::create(path)?;
            let sandbox = File::open(pod.path())?;
            let wiring = self.wiring()?;
            let index = FIRST_INDEX + self.made;
            let start = Instant::now();
            raw_netlink::attach(&mut self.socket, &sandbox, &wiring, index, self.bridge)?;
            each.push(start.elapsed());
            pods.push(pod);
        }
        let all = each.iter().sum();
        Ok((Times::new(each, all), pods))
    }

    fn wiring(&self) -> Result<Wiring> {
        let [_, _, high, low] = (self.made + 10).to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(10, 98, high, low));
        let pool = self.network.pools.first().context("no pool")?;
        let mut wiring =
            spec(self.made)?.build_wiring(&self.network, &[Assigned { ip, pool }], 1500, true)?;
        wiring.host_ifname = format!("fl{}", FIRST_INDEX + self.made).parse()?;
        Ok(wiring)
    }
}

/// Host name of the `n`th before the last one.
fn name(last: u32, n: usize) -> String {
    format!("fl{}", last - u32::try_from(n).unwrap_or(0))
}

fn spec(number: u32) -> Result<AttachSpec> {
    let key = EndpointKey { sandbox: format!("floor-{number}").parse()?, ifname: "eth0".parse()? };
    Ok(AttachSpec::for_endpoint(key, "default".parse()?, 0))
}
