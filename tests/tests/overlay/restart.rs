//! netd is killed and started again, node by node, while all pods talk to all others.

use std::time::Duration;

use anyhow::Result;
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, traffic::AllPairs},
    wait,
};

use super::backend;

const RATE: u32 = 200;

fn no_packet_is_lost(kind: &str) -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend(kind)))?;
        let pods = cluster.pods()?;
        let all: Vec<&Sandbox> = pods.iter().collect();
        let traffic = AllPairs::start(&all, RATE)?;
        for node in &mut cluster.nodes {
            node.netd.kill9()?;
            wait::pause(Duration::from_millis(300));
            // Stopped in order, too.
            node.netd.restart()?;
            node.netd.restart()?;
        }
        cluster.wait_converged()?;
        wait::pause(Duration::from_millis(300));
        traffic.finish_without_loss(&format!("{kind}: each netd killed, and restarted twice"))
    })
}

#[test]
fn no_packet_is_lost_with_vxlan() -> Result<()> {
    no_packet_is_lost("vxlan")
}

#[test]
fn no_packet_is_lost_with_host_gw() -> Result<()> {
    no_packet_is_lost("host-gw")
}

#[test]
fn no_packet_is_lost_with_udp() -> Result<()> {
    no_packet_is_lost("udp")
}

#[test]
fn no_packet_is_lost_with_wireguard() -> Result<()> {
    no_packet_is_lost("wireguard")
}
