//! Of which of a node's subnets docker0 gives out the addresses. docker0 itself is a bridge
//! that the test makes: netd looks at its name and its addresses.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, Node},
    net::probe,
    paths, wait,
};

use super::{SOON, backend};

fn one_node(own: &str) -> Plan {
    Plan::new(Families::V4, backend("vxlan")).nodes(1).overlay(own)
}

/// Gives docker0 the address that `subnet.env` names.
fn make_docker0(node: &Node) -> Result<()> {
    let script = format!(
        ". {}; ip link add docker0 type bridge; ip link set docker0 up; \
         ip address add $FLANNEL_SUBNET label docker0 dev docker0",
        node.subnet_file().display()
    );
    node.host.net.sh(&script).map(drop)
}

fn docker_opts(node: &Node) -> Result<Output> {
    let mut command = node.host.net.command(paths::built("netd")?);
    command.args(["docker-opts", "-c", "-d", "/dev/stdout", "-f"]).arg(node.subnet_file());
    Ok(command.arg("--socket").arg(node.netd.socket()).output()?)
}

fn refused_options(node: &Node) -> Result<()> {
    let output = docker_opts(node)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && said.contains("overlay.docker0"), "{said}");
    Ok(())
}

/// docker0's subnet of its only lease, once it has one.
fn docker0s(node: &Node) -> Result<String> {
    let found = wait::until(SOON, "docker0 has a subnet", || {
        let networks = node.netd.networks()?;
        let mut all = networks.iter().flat_map(|n| &n.network).flat_map(|n| &n.docker0);
        all.next().cloned().with_context(|| format!("none: {networks:?}"))
    })?;
    let output = docker_opts(node)?;
    let said = format!("{output:?}");
    let bip = format!("--bip={}", found.0.replace(".0/", ".1/"));
    ensure!(output.status.success() && said.contains(&bip), "no {bip}: {said}");
    Ok(found.0)
}

/// Why a pod can't be attached.
fn refusal(node: &Node) -> Result<String> {
    let mut pod = Sandbox::bare(&node.host, "refused")?;
    match pod.add(&node.host) {
        Ok(answer) => anyhow::bail!("it was attached: {answer}"),
        Err(error) => Ok(error.to_string()),
    }
}

#[test]
fn while_docker0_has_a_subnet_of_the_pods_they_get_no_address_of_it() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &one_node(""))?;
        let node = cluster.nodes.first_mut().context("no node")?;
        let pool = node.subnets()?.first().context("no subnet")?.clone();
        refused_options(node)?;
        make_docker0(node)?;
        wait::until(SOON, "it is seen", || {
            let problem = node.problem("docker0/default")?;
            ensure!(problem.contains("docker0") && problem.contains(&pool), "{problem}");
            Ok(())
        })?;
        let said = refusal(node)?;
        ensure!(said.contains("docker0") && said.contains(&pool), "{said}");
        // The key gives it to docker0, as no pod has an address of it.
        node.reconfigure(&cluster.etcd, "docker0 = true\n")?;
        node.netd.restart()?;
        ensure!(docker0s(node)? == pool);
        let pod = Sandbox::attached(&node.host, "pod")?;
        ensure!(node.own()?.len() == 2, "{:?}", node.own()?);
        // And back: it is no pool before docker0 lets it go.
        node.reconfigure(&cluster.etcd, "")?;
        node.netd.restart()?;
        wait::until(SOON, "it is said", || {
            let problem = node.problem("overlay/docker0")?;
            ensure!(problem.contains("overlay.docker0"), "{problem}");
            Ok(())
        })?;
        refused_options(node)?;
        let pools = |node: &Node| -> Result<Vec<String>> {
            let networks = node.netd.networks()?;
            let pools = networks.iter().flat_map(|n| &n.pools);
            Ok(pools.map(|pool| pool.subnet.clone()).collect())
        };
        ensure!(!pools(node)?.contains(&pool), "{:?}", pools(node)?);
        probe::ping(&node.host.net, pod.v4()?)?;
        node.host.net.sh("ip link delete docker0")?;
        wait::until(SOON, "it is the pods' again", || {
            let now = pools(node)?;
            ensure!(now.contains(&pool) && now.len() == 2, "{now:?}");
            ensure!(node.problem("overlay/docker0")?.is_empty());
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn docker0_gets_a_subnet_that_no_pod_uses_and_keeps_it() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &one_node(""))?;
        let node = cluster.nodes.first_mut().context("no node")?;
        let pool = node.subnets()?.first().context("no subnet")?.clone();
        let pod = Sandbox::attached(&node.host, "pod")?;
        node.reconfigure(&cluster.etcd, "docker0 = true\n")?;
        node.netd.restart()?;
        let own = docker0s(node)?;
        ensure!(own != pool, "docker0 has the pods' {pool}");
        let other = Sandbox::attached(&node.host, "other")?;
        super::pings(&pod, &other)?;
        pod.del(&node.host)?;
        other.del(&node.host)?;
        node.netd.restart()?;
        ensure!(docker0s(node)? == own);
        Ok(())
    })
}

#[test]
fn pods_of_a_node_with_one_fixed_subnet_that_is_docker0s_are_refused() -> Result<()> {
    case(|bed| {
        let own = "docker0 = true\npod_cidr = [\"10.5.7.0/24\"]";
        let cluster = Cluster::start(bed, &one_node(own))?;
        let node = cluster.nodes.first().context("no node")?;
        ensure!(docker0s(node)? == "10.5.7.0/24");
        let said = refusal(node)?;
        ensure!(said.contains("overlay.docker0") && said.contains("10.5.7.0/24"), "{said}");
        ensure!(said.contains("overlay.pod_cidr"), "{said}");
        Ok(())
    })
}
