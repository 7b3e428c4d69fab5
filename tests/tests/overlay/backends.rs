//! Each backend with each family of pods: all reach all, nobody's address is changed, the
//! largest packet fits.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    Cluster, Plan, case,
    cluster::{Families, reach},
};

use super::backend;

fn works(plan: Plan, mtu: u32) -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        let ways = reach::all_pairs(&pods, plan.families)?;
        ensure!(ways == plan.nodes * (plan.nodes - 1) * plan.families.count(), "{ways} ways");
        reach::largest(&pods, mtu)?;
        for node in &cluster.nodes {
            let cut = reach::fragmented(&node.host.net)?;
            ensure!(cut == 0, "{} had to cut {cut} packets into pieces", node.host.name);
        }
        reach::in_pieces(&pods, mtu)?;
        reach::hosts(&cluster.nodes, &pods)?;
        let (first, last) = (cluster.nodes.first(), pods.last());
        let (node, pod) = first.zip(last).context("no node")?;
        for ip in &pod.ips {
            let route = node.route(*ip)?;
            ensure!(route.agrees && route.mtu == mtu, "{route:?}");
        }
        let programmed = node.metric("netd_overlay_peers{state=\"programmed\"")?;
        ensure!(programmed == 2.0, "{programmed} peers programmed");
        Ok(())
    })
}

fn of(kind: &str, families: Families, mtu: u32) -> Result<()> {
    works(Plan::new(families, backend(kind)), mtu)
}

#[test]
fn vxlan_with_ipv4() -> Result<()> {
    of("vxlan", Families::V4, 1450)
}

#[test]
fn vxlan_with_ipv6() -> Result<()> {
    of("vxlan", Families::V6, 1430)
}

#[test]
fn vxlan_with_both() -> Result<()> {
    of("vxlan", Families::Dual, 1430)
}

#[test]
fn vxlan_with_routed_pods_and_options() -> Result<()> {
    let options = json!({"Type": "vxlan", "VNI": 77, "Port": 4789, "GBP": true, "MTU": 1400});
    let mut plan = Plan::new(Families::Dual, options);
    plan.driver = "routed";
    works(plan, 1330)
}

#[test]
fn host_gw_with_ipv4() -> Result<()> {
    of("host-gw", Families::V4, 1500)
}

#[test]
fn host_gw_with_ipv6() -> Result<()> {
    of("host-gw", Families::V6, 1500)
}

#[test]
fn host_gw_with_both() -> Result<()> {
    of("host-gw", Families::Dual, 1500)
}

#[test]
fn udp_with_ipv4() -> Result<()> {
    of("udp", Families::V4, 1472)
}

#[test]
fn udp_with_ipv6() -> Result<()> {
    of("udp", Families::V6, 1472)
}

#[test]
fn udp_with_both() -> Result<()> {
    of("udp", Families::Dual, 1472)
}

#[test]
fn wireguard_with_ipv4() -> Result<()> {
    of("wireguard", Families::V4, 1420)
}

#[test]
fn wireguard_with_ipv6() -> Result<()> {
    of("wireguard", Families::V6, 1420)
}

#[test]
fn wireguard_with_both_and_options() -> Result<()> {
    let options: Value = json!({"Type": "wireguard", "Mode": "auto", "ListenPort": 51900,
        "PSK": "7gwJ8t3oRaiG6mNdKxIGhzDnQ9B4uaWVxVOfSZLKpRI=", "PersistentKeepaliveInterval": 5});
    works(Plan::new(Families::Dual, options), 1420)
}

/// The commands are the operator's: here they make what host-gw would.
#[test]
fn extension_runs_its_commands() -> Result<()> {
    let options = json!({
        "Type": "extension",
        "PreStartupCommand": "echo hello",
        "SubnetAddCommand": "ip route replace $SUBNET via $PUBLIC_IP",
        "SubnetRemoveCommand": "ip route del $SUBNET",
    });
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, options))?;
        let pods = cluster.pods()?;
        reach::all_pairs(&pods, Families::V4)?;
        for (_, value) in cluster.leases()? {
            ensure!(value.contains("\"BackendData\":\"hello\""), "{value}");
        }
        Ok(())
    })
}

/// Subnets are given out; the way between them is another program's.
#[test]
fn alloc_gives_out_subnets_and_routes_nothing() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("alloc")))?;
        cluster.pods()?;
        ensure!(cluster.check_no_subnet_twice()? == 3);
        for node in &cluster.nodes {
            let own = node.subnets()?;
            for other in &cluster.leases()? {
                let net = other.0.split('&').next().unwrap_or_default().replace('-', "/");
                ensure!(own.contains(&net) || !node.routes()?.contains(&net), "{net} is routed");
            }
        }
        Ok(())
    })
}

/// A kernel without ipip: said with words, and pods on one node go on.
#[test]
fn ipip_works_or_says_that_the_kernel_has_none() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("ipip"));
        let has = bed.underlay().sh("ip link add probe type ipip remote 192.0.2.9").is_ok();
        if has {
            bed.underlay().sh("ip link delete probe")?;
            let cluster = Cluster::start(bed, &plan)?;
            reach::all_pairs(&cluster.pods()?, Families::V4)?;
            return Ok(());
        }
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let node = cluster.add(bed)?;
        testbed::wait::until(super::SOON, "the trouble is named", || {
            let problem = node.problem("overlay")?;
            ensure!(problem.contains("ipip"), "{problem}");
            ensure!(!node.netd.status()?.ready, "ready without its backend");
            Ok(())
        })?;
        Ok(())
    })
}
