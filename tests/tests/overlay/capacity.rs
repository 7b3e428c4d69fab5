//! Several subnets on a node: another when one is full, back when it is empty.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, flannel},
    wait,
};

use super::{SOON, backend, pings};

/// A /29 has a gateway and five addresses for pods.
const ROOM: usize = 5;

fn plan() -> Plan {
    Plan::new(Families::V4, backend("vxlan"))
        .nodes(2)
        .overlay("keep_empty = \"1s\"")
        .set("SubnetLen", json!(29))
}

#[test]
fn a_full_node_takes_another_subnet_and_gives_it_back_when_it_is_empty() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &plan())?;
        let [node, other] = &cluster.nodes[..] else { return Ok(()) };
        let far = Sandbox::attached(&other.host, "far")?;
        let first = node.subnets()?;
        let mut pods = Vec::new();
        for _ in 0..2 * ROOM + 1 {
            pods.push(Sandbox::attached(&node.host, "pod")?);
        }
        let own = node.own()?;
        ensure!(own.len() >= 3, "{own:?}");
        ensure!(own.iter().any(|subnet| subnet.subnets == first), "the first is gone: {own:?}");
        wait::until(SOON, "the other node routes to all of them", || {
            pods.iter().try_for_each(|pod| pings(&far, pod).and(pings(pod, &far)))
        })?;
        for pod in pods.drain(1..) {
            pod.del(&node.host)?;
        }
        wait::until(Duration::from_secs(20), "the empty ones are given back", || {
            let own = node.own()?;
            ensure!(own.len() == 1 && own.iter().all(|o| o.subnets == first), "{own:?}");
            ensure!(cluster.leases()?.len() == 2, "{:?}", cluster.leases()?);
            Ok(())
        })?;
        wait::until(SOON, "the other node forgets them", || {
            let routes = other.routes()?;
            let over = routes.lines().filter(|line| line.contains("dev flannel.1")).count();
            ensure!(over == 1, "{routes}");
            Ok(())
        })?;
        pings(&far, pods.first().context("no pod")?)
    })
}

#[test]
fn a_cluster_without_a_free_subnet_says_so() -> Result<()> {
    case(|bed| {
        let plan = plan().set("SubnetMin", json!("10.5.1.0")).set("SubnetMax", json!("10.5.1.8"));
        let mut cluster = Cluster::start(bed, &plan)?;
        let node = cluster.add(bed)?;
        wait::until(SOON, "it is said", || {
            let problem = node.problem("overlay/subnet")?;
            ensure!(problem.contains("no free IPv4 subnet"), "{problem}");
            ensure!(problem.contains("SubnetMax"), "{problem}");
            Ok(())
        })?;
        // Somebody makes room.
        let gone = cluster.nodes.remove(0);
        let name = gone.subnets()?.first().context("no subnet")?.replace('/', "-");
        drop(gone);
        cluster.etcd.ctl(&["del", &flannel::lease_key(&name)])?;
        cluster.etcd.ctl(&["del", &format!("/netd/v1/cluster/owners/{name}")])?;
        cluster.nodes.last_mut().context("no node")?.wait_ready()
    })
}

#[test]
fn a_fixed_subnet_is_taken_and_no_other() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::Dual, backend("vxlan")).nodes(1);
        let mut cluster = Cluster::start(bed, &plan)?;
        let own = "pod_cidr = [\"10.5.7.0/24\", \"fd00:5:0:7::/64\"]\n";
        let node = cluster.nodes.first_mut().context("no node")?;
        node.reconfigure(&cluster.etcd, own)?;
        node.netd.restart()?;
        wait::until(SOON, "it has the configured one", || {
            let own = node.own()?;
            let has = own.iter().any(|o| o.subnets == ["10.5.7.0/24", "fd00:5:0:7::/64"]);
            ensure!(has, "{own:?}");
            Ok(())
        })?;
        let pod = Sandbox::attached(&node.host, "pod")?;
        ensure!(pod.v4()?.to_string().starts_with("10.5.7."), "{:?}", pod.ips);
        Ok(())
    })
}

/// The gateway's address would be on the bridge, and the node's neighbours out of reach.
#[test]
fn a_fixed_subnet_that_is_the_hosts_own_network_is_left_out() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let mut cluster = Cluster::start(bed, &plan)?;
        let node = cluster.nodes.first_mut().context("no node")?;
        let net = &node.host.net;
        net.sh("ip link add lan0 type ifb && ip link set lan0 up")?;
        net.sh("ip address add 10.5.7.9/24 dev lan0")?;
        node.reconfigure(&cluster.etcd, "pod_cidr = [\"10.5.7.0/24\"]\n")?;
        node.netd.kill9()?;
        node.netd.respawn()?;
        wait::until(SOON, "it is said", || {
            let problem = node.problem("network/default")?;
            ensure!(
                problem.contains("lan0") && problem.contains("allow_host_overlap"),
                "{problem}"
            );
            Ok(())
        })?;
        let node = &*node;
        let has_gateway = || -> Result<bool> {
            Ok(node.host.net.sh("ip -o address show")?.contains("10.5.7.1/24"))
        };
        ensure!(!has_gateway()?, "the gateway's address is there");
        ensure!(Sandbox::attached(&node.host, "refused").is_err(), "a pod of the host's LAN");
        node.host.net.sh("ip address del 10.5.7.9/24 dev lan0")?;
        wait::until(SOON, "it is made", || {
            ensure!(has_gateway()?);
            Ok(())
        })?;
        let pod = Sandbox::attached(&node.host, "pod")?;
        ensure!(pod.v4()?.to_string().starts_with("10.5.7."), "{:?}", pod.ips);
        Ok(())
    })
}
