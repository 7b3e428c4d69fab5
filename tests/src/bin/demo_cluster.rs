//! `make demo-cluster`: three nodes with a netd each, one etcd, pods everywhere; one
//! backend after the other, without a restart; who reaches whom, and how fast. Every line
//! that says PASS was checked just then.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{
    Bed, Cluster, Plan, Sandbox,
    cluster::{Families, network_config, reach},
    net::iperf,
    report::Report,
    wait,
};

const SECONDS: u32 = 2;

/// Changes the cluster's backend and waits until it is in force everywhere.
fn change(cluster: &Cluster, backend: &str) -> Result<Duration> {
    let start = Instant::now();
    let config: Value = json!({ "Type": backend });
    cluster.configure(&network_config(Families::Dual, config))?;
    wait::until(Duration::from_secs(10), "all nodes follow", || {
        for node in &cluster.nodes {
            let listed = node.listed()?;
            ensure!(listed.backend == backend, "{} has {}", node.host.name, listed.backend);
            let others = listed.nodes.iter().filter(|n| !n.local);
            let reached = others.filter(|n| n.programmed && said(&n.backend, backend)).count();
            ensure!(reached + 1 == cluster.nodes.len(), "{:?}", listed.nodes);
        }
        Ok(())
    })?;
    Ok(start.elapsed())
}

/// Leases of udp don't name it.
fn said(lease: &str, backend: &str) -> bool {
    lease == backend || (backend == "udp" && lease.is_empty())
}

fn show(cluster: &Cluster, pods: &[Sandbox], backend: &str) -> Result<String> {
    let took = change(cluster, backend)?;
    let (first, last) = pods.first().zip(pods.last()).context("no pods")?;
    let first_ip = first.v4()?;
    reach::until_reached(&last.net, first_ip, Duration::from_secs(5))?;
    let ways = reach::all_pairs(pods, Families::Dual)?;
    let mtu = cluster.nodes.first().context("no node")?.route(last.v4()?)?.mtu;
    let rate = iperf::tcp(&last.net, first_ip, 1, SECONDS)?.rate / 1e9;
    Ok(format!(
        "in force after {:>3} ms, MTU {mtu}, {ways} of {ways} ways with own addresses, \
         iperf3 {rate:.1} Gbit/s",
        took.as_millis(),
    ))
}

fn demonstrate(report: &mut Report, bed: &Bed) -> Result<()> {
    let start = Instant::now();
    let mut cluster = Cluster::start(bed, &Plan::new(Families::Dual, json!({"Type": "vxlan"})))?;
    cluster.nodes.iter_mut().try_for_each(|node| node.need_tunnel())?;
    let pods = cluster.pods()?;
    println!("three nodes, one etcd, a pod on each: up in {:.1?}", start.elapsed());
    for (node, pod) in cluster.nodes.iter().zip(&pods) {
        let ips: Vec<String> = pod.ips.iter().map(ToString::to_string).collect();
        println!("  {} {}  has {}", node.host.name, node.host.v4, ips.join(" "));
    }
    println!("\nthe cluster's configuration is changed in etcd, from backend to backend");
    println!("(a debug build; `make bench-overlay` measures):");
    let server_at = pods.first().context("no pod")?;
    let server = iperf::Server::start(&server_at.net, bed.directory())?;
    for backend in ["vxlan", "host-gw", "udp", "wireguard"] {
        report.line(backend, show(&cluster, &pods, backend));
    }
    drop(server);
    let ipip = "ip link add probe type ipip remote 192.0.2.9 && ip link delete probe";
    match bed.underlay().sh(ipip) {
        Ok(_) => report.line("ipip", show(&cluster, &pods, "ipip")),
        Err(_) => println!("  ----  ipip        is missing in this kernel"),
    }
    change(&cluster, "vxlan")?;
    let node = cluster.nodes.first().context("no node")?;
    println!("\n$ netd node list\n{}", node.netd.cli(&["node", "list"])?.trim_end());
    let ip = pods.last().context("no pod")?.v4()?.to_string();
    println!("\n$ netd route get {ip}\n{}", node.netd.cli(&["route", "get", &ip])?.trim_end());
    for (node, pod) in cluster.nodes.iter().zip(&pods) {
        pod.del(&node.host)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    Report::of(11, demonstrate)
}
