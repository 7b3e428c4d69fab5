//! Leases in etcd, with the podCIDRs that the API has for the Nodes.

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::{Cluster, Families, Node},
    net::probe,
    wait,
};

use super::{SOON, backend};

/// netd's own component for them.
const PART: &str = "overlay/pod-cidr";

fn plan(api: &ApiServer) -> Plan {
    let kubernetes = format!("[kubernetes]\nkubeconfig = {:?}\ntimeout = \"2s\"", api.kubeconfig());
    Plan::new(Families::V4, backend("vxlan")).overlay("pod_cidr = \"node\"").overlay(&kubernetes)
}

fn wait_problem(node: &Node, word: &str) -> Result<()> {
    wait::until(SOON, &format!("{PART} says {word:?}"), || {
        let problem = node.problem(PART)?;
        ensure!(problem.contains(word), "{problem:?}");
        Ok(())
    })
    .map(drop)
}

fn restart(node: &mut Node) -> Result<()> {
    node.netd.kill9()?;
    node.netd.respawn()?;
    node.wait_ready()
}

#[test]
fn a_node_leases_its_nodes_pod_cidr() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        let mut cluster = Cluster::prepare(bed, &plan(&api))?;
        api.add_node("n0", &["10.5.70.0/24"], &json!({}))?;
        cluster.join(bed)?;
        ensure!(cluster.nodes[0].subnets()? == ["10.5.70.0/24"], "{:?}", cluster.nodes[0].own()?);

        // There is no Node, then one without a podCIDR, then it is assigned.
        cluster.add(bed)?;
        wait_problem(&cluster.nodes[1], "there is no Node n1")?;
        api.add_node("n1", &[], &json!({}))?;
        wait_problem(&cluster.nodes[1], "no spec.podCIDRs")?;
        let spec = json!({ "podCIDR": "10.5.71.0/24", "podCIDRs": ["10.5.71.0/24"] });
        api.patch_node("n1", &json!({ "spec": spec }))?;
        cluster.nodes[1].wait_ready()?;
        cluster.wait_converged()?;
        let pods = [
            Sandbox::attached(&cluster.nodes[0].host, "a")?,
            Sandbox::attached(&cluster.nodes[1].host, "b")?,
        ];
        probe::ping(&pods[0].net, pods[1].v4()?)?;
        ensure!(pods[1].v4()?.to_string().starts_with("10.5.71."), "{:?}", pods[1].ips);

        // Without the API a start goes on with what is remembered.
        api.kill()?;
        restart(&mut cluster.nodes[0])?;
        ensure!(cluster.nodes[0].subnets()? == ["10.5.70.0/24"], "{:?}", cluster.nodes[0].own()?);
        let late = Sandbox::attached(&cluster.nodes[0].host, "late")?;
        probe::ping(&late.net, pods[1].v4()?)?;
        api.run()?;

        // The Node was made again with another one: that is in force after a restart, and the pods
        // that are there keep their addresses.
        api.kubectl(&["delete", "node", "n0"])?;
        api.add_node("n0", &["10.5.80.0/24"], &json!({}))?;
        restart(&mut cluster.nodes[0])?;
        let new = Sandbox::attached(&cluster.nodes[0].host, "new")?;
        ensure!(new.v4()?.to_string().starts_with("10.5.80."), "{:?}", new.ips);
        wait::until(SOON, "the new subnet is known", || probe::ping(&new.net, pods[1].v4()?))?;
        for old in [&pods[0], &late] {
            probe::ping(&pods[1].net, old.v4()?)?;
        }
        ensure!(cluster.nodes[0].problem(PART)?.is_empty(), "{}", cluster.nodes[0].problem(PART)?);

        // A node that is gone does not hold its podCIDR back until its lease ends.
        cluster.nodes[1].netd.service().stop(SOON)?;
        cluster.nodes[0].netd.cli(&["node", "remove", "n1"])?;
        let leases = cluster.leases()?;
        ensure!(!leases.iter().any(|(name, _)| name.starts_with("10.5.71.")), "{leases:?}");
        Ok(())
    })
}
