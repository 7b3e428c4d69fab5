//! `make test-upgrade FROM=COMMIT`: an earlier netd is replaced by this one under running
//! pods, on one node and on a cluster. No packet may be lost, no record and nothing in the
//! kernel may change, and the earlier CNI plugin has to go on working.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{Endpoint, NetworkStatus};
use serde_json::json;
use testbed::{
    Cluster, Daemon, DaemonConfig, Host, Plan, Sandbox, case,
    cluster::{Families, traffic::AllPairs},
    inventory, paths, wait,
};

/// Packets a second of each flow.
const RATE: u32 = 500;

fn main() -> ExitCode {
    let Some(old) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: netd-upgrade DIRECTORY-OF-THE-EARLIER-BUILD");
        return ExitCode::from(2);
    };
    let checks: [(&str, Result<()>); 3] = [
        ("one node, bridge driver", one_node(&old, "bridge")),
        ("one node, routed driver", one_node(&old, "routed")),
        ("three nodes on etcd, vxlan", three_nodes(&old)),
    ];
    let mut failed = 0;
    for (what, outcome) in &checks {
        match outcome {
            Ok(()) => println!("PASS  {what}"),
            Err(error) => {
                failed += 1;
                println!("FAIL  {what}: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed", checks.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_node(old: &Path, driver: &str) -> Result<()> {
    case(|bed| {
        paths::use_build(Some(old));
        let host = bed.host("node")?;
        let config = DaemonConfig::with_driver(driver)
            .and_network("blue", driver, &["10.77.0.0/24"])
            .without_access();
        let mut netd = Daemon::start(&host, &config)?;
        let mut pods = [
            Sandbox::bare(&host, "one")?,
            Sandbox::bare(&host, "two")?,
            Sandbox::bare(&host, "three")?,
        ];
        let port = json!([{"hostPort": 8081, "containerPort": 80, "protocol": "tcp"}]);
        pods[1].config["runtimeConfig"] = json!({"portMappings": port});
        pods[2].config["network"] = json!("blue");
        for pod in &mut pods {
            let result = pod.add(&host)?;
            pod.config["prevResult"] = result;
        }
        let (endpoints, networks) = (steady(netd.endpoints()?), as_before(netd.networks()?));
        let kernel = inventory::of(&host)?;

        let traffic = AllPairs::start(&[&pods[0], &pods[1]], RATE)?;
        for killed in [false, true] {
            paths::use_build(Some(old));
            go_back(&mut netd, &host)?;
            wait::pause(Duration::from_millis(300));
            paths::use_build(None);
            if killed {
                netd.kill9()?;
            }
            netd.restart()?;
            wait::pause(Duration::from_millis(300));
        }
        traffic.finish_without_loss(driver)?;

        ensure!(steady(netd.endpoints()?) == endpoints, "the endpoints changed");
        ensure!(as_before(netd.networks()?) == networks, "the networks changed");
        let now = inventory::of(&host)?;
        netd.restart()?;
        let difference = inventory::difference(&now, &inventory::of(&host)?);
        ensure!(difference.is_empty(), "another restart changed the kernel's state:\n{difference}");
        let difference = inventory::difference(&without_rules(&kernel), &without_rules(&now));
        ensure!(difference.is_empty(), "the kernel's state changed:\n{difference}");
        plugins_of_both_builds(old, &host)?;
        for pod in &pods {
            pod.call("CHECK").execute(&host)?.ok().context("CHECK of a pod of before")?;
            pod.del(&host)?;
        }
        // Links leave the kernel behind the caller's back.
        wait::until(Duration::from_secs(5), "every endpoint is gone", || {
            ensure!(netd.endpoints()?.is_empty(), "{:?}", netd.endpoints()?);
            Ok(())
        })?;
        Ok(())
    })
}

/// Does what is documented for the way back to an earlier release; systemctl is played.
fn go_back(netd: &mut Daemon, host: &Host) -> Result<()> {
    let text = fs::read_to_string(paths::root().join("docs/operations.md"))?;
    let (_, section) = text.split_once("### And back to 0.1").context("no section")?;
    let block = section.split("```").nth(1).context("no commands")?;
    let lines = block.lines().skip(1).filter(|line| !line.starts_with("systemctl "));
    netd.service().stop(Duration::from_secs(20))?;
    host.net.sh(&lines.collect::<Vec<_>>().join("\n"))?;
    netd.respawn()?;
    netd.wait_ready()
}

/// Without what earlier releases do not say of a network.
fn as_before(mut networks: Vec<NetworkStatus>) -> Vec<NetworkStatus> {
    for network in networks.iter_mut().filter_map(|status| status.network.as_mut()) {
        network.pods = None;
        network.repair = 0;
    }
    networks
}

/// Each release has nftables rules of its own.
fn without_rules(inventory: &str) -> String {
    inventory.lines().filter(|line| !line.starts_with("nft ")).collect::<Vec<_>>().join("\n")
}

/// Each plugin attaches, checks and detaches, also what the other one attached.
fn plugins_of_both_builds(old: &Path, host: &Host) -> Result<()> {
    for (adds, deletes) in [(Some(old), None), (None, Some(old)), (Some(old), Some(old))] {
        paths::use_build(adds);
        let mut pod = Sandbox::bare(host, "later")?;
        let result = pod.add(host).context("ADD")?;
        pod.config["prevResult"] = result;
        pod.call("CHECK").execute(host)?.ok().context("CHECK by the plugin that attached")?;
        paths::use_build(deletes);
        pod.call("CHECK").execute(host)?.ok().context("CHECK by the other plugin")?;
        pod.config["prevResult"] = json!(null);
        pod.config.as_object_mut().context("no object")?.remove("prevResult");
        pod.del(host).context("DEL")?;
    }
    paths::use_build(None);
    Ok(())
}

fn three_nodes(old: &Path) -> Result<()> {
    case(|bed| {
        paths::use_build(Some(old));
        let plan = Plan::new(Families::Dual, json!({"Type": "vxlan"}));
        let mut cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        let all: Vec<&Sandbox> = pods.iter().collect();
        let leases = cluster.leases()?;
        let traffic = AllPairs::start(&all, RATE / 2)?;
        paths::use_build(None);
        for node in &mut cluster.nodes {
            node.netd.restart()?;
            wait::pause(Duration::from_millis(500));
        }
        cluster.wait_converged()?;
        traffic.finish_without_loss("each node's netd replaced")?;
        ensure!(cluster.leases()? == leases, "the leases changed");
        Ok(())
    })
}

/// Endpoints without what a restart counts.
fn steady(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    endpoints.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    endpoints
}
