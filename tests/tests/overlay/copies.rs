//! Machines that are copies of each other: one state directory, and so one node id, one
//! subnet, one MAC. No address may be given out twice, and what is no copy must lose nothing.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{
    Bed, Cluster, Plan, Sandbox, case,
    cluster::{Families, Node},
    wait,
};

use super::{backend, pings};

/// A machine at another address may still answer for so long.
const ANSWER: Duration = Duration::from_secs(15);

/// Another machine with this node's state as it is on disk now.
fn copied(bed: &Bed, cluster: &Cluster, node: usize, name: &str) -> Result<Node> {
    let host = bed.host(name)?;
    let from = cluster.nodes[node].host.directory().join("netd/state");
    let to = host.directory().join("netd");
    std::fs::create_dir_all(&to)?;
    let copy = |from: &Path| format!("cp -a {} {}", from.display(), to.display());
    host.net.sh(&copy(&from))?;
    Node::launch_on(host, &cluster.plan, &cluster.etcd)
}

fn revision(cluster: &Cluster) -> Result<i64> {
    let text = cluster.etcd.ctl(&["get", "nothing", "-w", "json"])?;
    let json: Value = serde_json::from_str(&text)?;
    json["header"]["revision"].as_i64().context(text)
}

fn node_id(node: &Node) -> Result<String> {
    let path = node.host.directory().join("netd/state/overlay/node-id");
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

fn start(bed: &Bed) -> Result<Cluster> {
    Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(1))
}

#[test]
fn a_copy_beside_the_running_original_takes_an_id_and_a_subnet_of_its_own() -> Result<()> {
    case(|bed| {
        let mut cluster = start(bed)?;
        let first = Sandbox::attached(&cluster.nodes[0].host, "first")?;
        let (had, id) = (cluster.nodes[0].subnets()?, node_id(&cluster.nodes[0])?);
        let mut copy = copied(bed, &cluster, 0, "copy")?;
        // Attached as soon as netd takes calls: not with an address of the original.
        let mut early = Sandbox::bare(&copy.host, "early")?;
        wait::until(ANSWER, "an attach", || early.add(&copy.host))?;
        ensure!(early.ips != first.ips, "both have {:?}", early.ips);
        copy.wait_ready()?;
        cluster.nodes.push(copy);
        let (original, copy) = (&cluster.nodes[0], &cluster.nodes[1]);
        ensure!(original.subnets()? == had && node_id(original)? == id, "the original lost");
        ensure!(copy.subnets()? != had && node_id(copy)? != id, "the copy has what it copied");
        let said = copy.problem("overlay/identity")?;
        ensure!(said.contains("copy") && said.contains(&original.host.v4.to_string()), "{said}");
        ensure!(original.problem("overlay/identity")?.is_empty());
        cluster.check_nobody_shares()?;
        // Their MACs are different ones too: pods reach each other.
        let second = Sandbox::attached(&copy.host, "second")?;
        wait::until(ANSWER, "pods reach each other", || {
            pings(&first, &second).and(pings(&second, &first))
        })?;
        let before = revision(&cluster)?;
        wait::pause(Duration::from_secs(3));
        let written = revision(&cluster)? - before;
        ensure!(written < 10, "{written} writes in 3 s of rest");
        // Both are started again, and nothing changes.
        let had: Vec<_> = cluster.nodes.iter().map(Node::subnets).collect::<Result<_>>()?;
        for node in &mut cluster.nodes {
            node.netd.kill9()?;
            node.netd.restart()?;
        }
        let now: Vec<_> = cluster.nodes.iter().map(Node::subnets).collect::<Result<_>>()?;
        ensure!(now == had, "{now:?}, not {had:?}");
        Ok(())
    })
}

#[test]
fn an_original_that_is_started_beside_its_copy_leaves_it_the_subnet() -> Result<()> {
    case(|bed| {
        let mut cluster = start(bed)?;
        let had = cluster.nodes[0].subnets()?;
        cluster.nodes[0].netd.service().stop(Duration::from_secs(20))?;
        let mut copy = copied(bed, &cluster, 0, "copy")?;
        copy.wait_ready()?;
        ensure!(copy.subnets()? == had, "nobody else answers to that id");
        cluster.nodes[0].netd.respawn()?;
        wait::until(ANSWER, "the original has another subnet", || {
            let subnets = cluster.nodes[0].subnets()?;
            ensure!(subnets != had, "{subnets:?}");
            Ok(())
        })?;
        cluster.nodes[0].wait_ready()?;
        cluster.nodes.push(copy);
        cluster.check_nobody_shares()?;
        let pods = [
            Sandbox::attached(&cluster.nodes[0].host, "a")?,
            Sandbox::attached(&cluster.nodes[1].host, "b")?,
        ];
        wait::until(ANSWER, "pods reach each other", || pings(&pods[0], &pods[1]))?;
        Ok(())
    })
}

#[test]
fn a_reboot_and_a_kill_are_no_copies() -> Result<()> {
    case(|bed| {
        let mut cluster = start(bed)?;
        let node = &mut cluster.nodes[0];
        let (had, id) = (node.subnets()?, node_id(node)?);
        for reboots in [false, true, true] {
            node.netd.kill9()?;
            if reboots {
                let run = node.host.directory().join("netd/run");
                std::fs::remove_dir_all(&run)?;
                std::fs::create_dir_all(&run)?;
            }
            node.netd.restart()?;
            ensure!(node.subnets()? == had && node_id(node)? == id, "taken for a copy");
            ensure!(node.problem("overlay/identity")?.is_empty());
            ensure!(node.problem("overlay/lost")?.is_empty());
        }
        Ok(())
    })
}
