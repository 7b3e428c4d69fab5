//! A node goes over from flannel to netd: the same subnet, the same device, no gap.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{
        Families, Node,
        flannel::{self, FlannelNode},
    },
    net::{flow::Flow, probe},
    wait,
};

use super::{SOON, backend, pings};

#[test]
fn a_node_that_ran_flannel_keeps_its_subnet_and_its_device() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        // Two flannel nodes that know each other; the first is to go over.
        let old = FlannelNode::vxlan(bed, "n0", "10.5.20.0/24")?;
        let stays = FlannelNode::vxlan(bed, "stays", "10.5.30.0/24")?;
        old.lease(&cluster.etcd)?;
        stays.lease(&cluster.etcd)?;
        old.follow(&cluster)?;
        stays.follow(&cluster)?;
        probe::ping(&old.pod, stays.pod_ip)?;
        let FlannelNode { host, pod, pod_ip, .. } = old;
        fs::write(
            host.directory().join("subnet.env"),
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.20.1/24\nFLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n",
        )?;
        let index =
            |host: &testbed::Host| host.net.sh("ip -o link show dev flannel.1 | cut -d: -f1");
        let device = index(&host)?;
        // A pod that was there before keeps talking.
        let flow = Flow::start(&pod, &stays.pod, stays.pod_ip, 9000, 200)?;
        cluster.nodes.push(Node::launch_on(host, &plan, &cluster.etcd)?);
        let node = cluster.nodes.last_mut().context("no node")?;
        node.wait_ready()?;
        ensure!(node.subnets()? == ["10.5.20.0/24"], "{:?}", node.subnets()?);
        ensure!(index(&node.host)? == device, "flannel.1 was recreated");
        // Its peers read the MAC that it has now.
        stays.follow(&cluster)?;
        wait::until(SOON, "old pods are reached", || probe::ping(&stays.pod, pod_ip))?;
        wait::pause(Duration::from_millis(500));
        let count = flow.finish()?;
        println!(
            "while it went over: {} of {} packets lost",
            count.sent - count.received,
            count.sent
        );
        ensure!(count.received + 5 >= count.sent, "{count:?}");
        let file = fs::read_to_string(cluster.nodes[0].subnet_file())?;
        ensure!(file.contains("FLANNEL_SUBNET=10.5.20.1/24\n"), "{file}");
        // And a netd node that joins reaches both kinds.
        cluster.join(bed)?;
        cluster.wait_converged()?;
        stays.follow(&cluster)?;
        let fresh = Sandbox::attached(&cluster.nodes[1].host, "fresh")?;
        probe::ping(&fresh.net, stays.pod_ip)?;
        let leases = cluster.leases()?;
        ensure!(leases.len() == 3, "{leases:?}");
        Ok(())
    })
}

/// Where both are flannel's, netd's restart changes nothing: it adopts what is there.
#[test]
fn the_device_outlives_restarts_with_the_same_mac() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = cluster.pods()?;
        let node = cluster.nodes.first_mut().context("no node")?;
        let (mac, kernel) = (flannel::mac_of(&node.host)?, testbed::inventory::of(&node.host)?);
        node.netd.kill9()?;
        node.netd.restart()?;
        let now = testbed::inventory::of(&node.host)?;
        ensure!(now == kernel, "{}", testbed::inventory::difference(&kernel, &now));
        // Also when the device is lost while nobody looks.
        node.netd.kill9()?;
        node.host.net.sh("ip link delete flannel.1")?;
        node.netd.restart()?;
        ensure!(flannel::mac_of(&node.host)? == mac, "another MAC");
        wait::until(SOON, "all is well", || {
            pings(&pods[0], &pods[1]).and(pings(&pods[1], &pods[0]))
        })?;
        Ok(())
    })
}
