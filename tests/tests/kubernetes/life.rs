//! Nodes on the Kubernetes API: pods that reach each other, podCIDRs that come late, restarts.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::{Families, Node},
    wait,
};

use super::{SOON, all_reach_each_other, backend, cluster, pods};

fn pods_reach_each_other(families: Families, kind: &str) -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let nodes = cluster(bed, &api, &Plan::new(families, backend(kind)))?;
        let pods = pods(&nodes)?;
        for (pod, number) in pods.iter().zip(1..) {
            let ip = pod.ips[0].to_string();
            let begins = if families.v4() {
                format!("10.5.{number}.")
            } else {
                format!("fd00:5:0:{number}:")
            };
            ensure!(ip.starts_with(&begins), "{ip} is not of Node n{number}'s podCIDR");
        }
        all_reach_each_other(&pods)
    })
}

#[test]
fn over_vxlan_with_both_families() -> Result<()> {
    pods_reach_each_other(Families::Dual, "vxlan")
}

#[test]
fn over_host_gw() -> Result<()> {
    pods_reach_each_other(Families::V4, "host-gw")
}

#[test]
fn over_wireguard() -> Result<()> {
    pods_reach_each_other(Families::V4, "wireguard")
}

#[test]
fn over_ipv6_alone() -> Result<()> {
    pods_reach_each_other(Families::V6, "vxlan")
}

/// The controller-manager assigns podCIDRs when it comes to it; until then, and with a podCIDR
/// that net-conf.json does not have, the node says why it has none.
#[test]
fn a_pod_cidr_may_come_late() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let mut node = Node::launch_in_kubernetes(bed.host("n1")?, &plan, &api)?;
        let says = |node: &Node, text: &str| {
            wait::until(SOON, "the node says why", || {
                let problem = node.problem("overlay/subnet")?;
                ensure!(problem.contains(text), "{problem}");
                Ok(())
            })
            .map(drop)
        };
        says(&node, "there is no Node n1")?;
        api.add_node("n1", &[], &json!({}))?;
        says(&node, "--allocate-node-cidrs")?;
        ensure!(api.annotations("n1")?.is_empty(), "announced without a podCIDR");
        let attach = Sandbox::attached(&node.host, "early");
        ensure!(attach.is_err(), "a pod without a podCIDR: {attach:?}");
        api.patch_node(
            "n1",
            &json!({ "spec": { "podCIDR": "10.5.1.0/24", "podCIDRs": ["10.5.1.0/24"] } }),
        )?;
        node.wait_ready()?;
        let pod = Sandbox::attached(&node.host, "pod")?;
        ensure!(pod.v4()?.to_string().starts_with("10.5.1."), "{:?}", pod.ips);
        // The Node is made again with another podCIDR, and this one is nobody's any longer.
        api.kubectl(&["delete", "node", "n1"])?;
        says(&node, "there is no Node n1")?;
        ensure!(Sandbox::attached(&node.host, "orphan")?.v4()?.to_string().starts_with("10.5.1."));
        api.add_node("n1", &["10.5.9.0/24"], &json!({}))?;
        wait::until(SOON, "it has the new podCIDR", || {
            ensure!(node.subnets()? == ["10.5.9.0/24"], "{:?}", node.subnets()?);
            Ok(())
        })?;
        let next = Sandbox::attached(&node.host, "next")?;
        ensure!(next.v4()?.to_string().starts_with("10.5.9."), "{:?}", next.ips);
        let lost = node.problem("overlay/lost")?;
        ensure!(lost.contains("10.5.1.0/24"), "{lost}");
        Ok(())
    })
}

#[test]
fn a_pod_cidr_outside_of_the_network_is_refused_by_name() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        api.add_node("n1", &["10.99.1.0/24"], &json!({}))?;
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let node = Node::launch_in_kubernetes(bed.host("n1")?, &plan, &api)?;
        wait::until(SOON, "the node says why", || {
            let problem = node.problem("overlay/subnet")?;
            ensure!(
                problem.contains("10.99.1.0/24") && problem.contains("10.5.0.0/16"),
                "{problem}"
            );
            Ok(())
        })?;
        ensure!(!node.netd.status()?.ready);
        Ok(())
    })
}

/// A restart, and a start without the API: the same subnets, and every peer's route stays.
#[test]
fn what_was_known_stays_in_force_over_a_start_without_the_api() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        let mut nodes = cluster(bed, &api, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = pods(&nodes)?;
        // What is known of others is written within some seconds.
        nodes[0].netd.restart()?;
        all_reach_each_other(&pods)?;
        wait::pause(std::time::Duration::from_secs(6));
        api.kill()?;
        nodes[0].netd.kill9()?;
        nodes[0].netd.respawn()?;
        nodes[0].wait_ready()?;
        all_reach_each_other(&pods)?;
        let pod = Sandbox::attached(&nodes[0].host, "without")?;
        ensure!(pod.v4()?.to_string().starts_with("10.5.1."), "{:?}", pod.ips);
        wait::until(SOON, "it says that the API is away", || {
            let problem = nodes[0].problem("kubernetes")?;
            ensure!(problem.contains("behind since"), "{problem}");
            Ok(())
        })?;
        api.run()?;
        wait::until(SOON * 2, "it is back", || {
            let problem = nodes[0].problem("kubernetes")?;
            ensure!(problem.is_empty(), "{problem}");
            Ok(())
        })?;
        Ok(())
    })
}
