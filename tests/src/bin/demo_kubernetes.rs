//! `make demo-kubernetes`: a whole Kubernetes on this machine, netd by its manifest, a Deployment
//! and a Service. Every line that says PASS was checked just then.

use std::{process::ExitCode, time::Duration, time::Instant};

use anyhow::{Context as _, Result};
use testbed::{Bed, KubernetesCluster, kubernetes::NODE_PORT, report::Report};

/// Of a few pods.
const SOON: Duration = Duration::from_secs(60);

fn demonstrate(report: &mut Report, bed: &Bed) -> Result<()> {
    let start = Instant::now();
    let cluster = KubernetesCluster::start(bed, 2)?;
    println!("{}, two nodes without a network: up in {:.1?}", cluster.version()?, start.elapsed());
    let start = Instant::now();
    println!("\n$ kubectl apply -f deploy/kubernetes/netd.yaml");
    cluster.deploy_netd()?;
    report.line(
        "nodes",
        Ok(format!("ready in {:.1?}, the import of the image with it", start.elapsed())),
    );
    let start = Instant::now();
    cluster.deploy_web(4)?;
    let pods = cluster.web_pods(4, SOON)?;
    report.line("deployment", Ok(format!("4 pods run after {:.1?}", start.elapsed())));
    let ways = cluster.all_pods_reach_each_other(&pods);
    report.line(
        "pods",
        ways.map(|ways| format!("{ways} of {ways} ways between their own addresses")),
    );
    let pod = pods.first().context("no pod")?;
    let service = cluster.web_service()?;
    let said = cluster.ask_from(pod, &service);
    report.line("ClusterIP", said.map(|name| format!("{} asked {service}: {name}", pod.name)));
    for node in &cluster.nodes {
        let target = format!("{}:{NODE_PORT}", node.host.v4);
        let said = cluster.ask_from(pod, &target);
        report.line("NodePort", said.map(|name| format!("{} asked {target}: {name}", pod.name)));
    }
    for command in [
        "get nodes -o wide",
        "get pods -A -o wide",
        "-n netd exec daemonset/netd -c netd -- netd status",
        "-n netd exec daemonset/netd -c netd -- netd node list",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        println!("\n$ kubectl {command}\n{}", cluster.api.kubectl(&words)?.trim_end());
    }
    Ok(())
}

fn main() -> ExitCode {
    Report::of(11, demonstrate)
}
