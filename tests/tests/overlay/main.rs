//! Many nodes on one etcd: who reaches whom, and what faults do to that.

mod backends;
mod capacity;
mod changes;
mod containerd;
mod copies;
mod direct;
mod docker0;
mod drift;
mod etcd_faults;
mod flood;
mod hostile;
mod life;
mod migration;
mod mixed;
mod own_subnet;
mod ports;
mod removal;
mod restart;
mod secrecy;
mod seen;
mod there_and_back;
mod underlays;
mod wireguard;

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::{Namespace, Sandbox, cluster::Node};

/// What a change of the cluster may take until it is in force everywhere.
const SOON: Duration = Duration::from_secs(10);

fn backend(kind: &str) -> Value {
    json!({ "Type": kind })
}

/// The device's MTU.
fn mtu(net: &Namespace, device: &str) -> Result<u32> {
    let shown = net.sh(&format!("ip -o link show dev {device}"))?;
    let mtu = shown.split(" mtu ").nth(1).and_then(|rest| rest.split(' ').next());
    mtu.with_context(|| shown.clone())?.parse().context(shown)
}

/// How the kernel of a node reaches an address, as `ip route get` has it.
fn kernel_route(node: &Node, ip: IpAddr) -> Result<String> {
    node.host.net.sh(&format!("ip route get {ip}"))
}

/// The first pod's way to the second.
fn pings(from: &Sandbox, to: &Sandbox) -> Result<()> {
    to.ips.iter().try_for_each(|ip| testbed::net::probe::ping(&from.net, *ip))
}
