//! A node goes over from flannel to netd: the same subnet, the same device, no gap.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::AttachRequest;
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{
        Families, Node,
        flannel::{self, FlannelNode},
    },
    net::{flow::Flow, probe},
    old_plugins::{self, OldNetwork, OldPod},
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

/// README's own way: flanneld is stopped and netd started, while pods run that flannel's
/// conflist made (`bridge` and `host-local`).
#[test]
fn running_pods_of_flannels_conflist_keep_their_addresses() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let old = FlannelNode::vxlan(bed, "n0", "10.5.20.0/24")?;
        let stays = FlannelNode::vxlan(bed, "stays", "10.5.30.0/24")?;
        for node in [&old, &stays] {
            node.lease(&cluster.etcd)?;
        }
        old.follow(&cluster)?;
        stays.follow(&cluster)?;
        let FlannelNode { host, pod_ip, pod: _by_hand, .. } = old;
        let cbr0 = OldNetwork::cbr0(&old_plugins::directories()?[1], &["10.5.20.0/24"]);
        let reserved = cbr0.reservation(&host, pod_ip);
        fs::create_dir_all(reserved.parent().context("no directory")?)?;
        fs::write(&reserved, "by-hand\r\neth0")?;
        let pods: Vec<OldPod> = (0..10)
            .map(|n| OldPod::add(&host, &cbr0, &format!("old{n}")))
            .collect::<Result<_>>()?;
        probe::ping(&pods[0].net, stays.pod_ip)?;
        let mac = bridge_mac(&host)?;
        fs::write(
            host.directory().join("subnet.env"),
            "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.20.1/24\nFLANNEL_MTU=1450\n\
             FLANNEL_IPMASQ=true\n",
        )?;
        cluster.nodes.push(Node::launch_on(host, &plan, &cluster.etcd)?);
        let node = cluster.nodes.last_mut().context("no node")?;
        node.wait_ready()?;
        ensure!(node.subnets()? == ["10.5.20.0/24"], "{:?}", node.subnets()?);
        // As flanneld does, which watches: netd may write its lease after it is ready.
        wait::until(SOON, "the other node follows the new lease", || {
            stays.follow(&cluster)?;
            probe::ping(&stays.pod, pods[0].v4()?)
        })?;
        let node = cluster.nodes.last_mut().context("no node")?;
        // The bridge goes on with its MAC, and results name the real one.
        ensure!(
            bridge_mac(&node.host)? == mac,
            "cni0 has another MAC: {}",
            bridge_mac(&node.host)?
        );
        let mut taken: Vec<_> = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        taken.push(pod_ip);
        for round in 0..2 {
            for (n, pod) in pods.iter().enumerate() {
                let new = Sandbox::attached(&node.host, &format!("new{round}-{n}"))?;
                ensure!(!taken.contains(&new.v4()?), "{} was given out twice", new.v4()?);
                probe::ping(&new.net, pod.v4()?)?;
                taken.push(new.v4()?);
                let shown = &node.netd.endpoints()?[0].bridge_mac;
                ensure!(*shown == mac, "{shown} is shown, {mac} is cni0's");
                new.del(&node.host)?;
            }
            for pod in &pods {
                wait::until(SOON, "old pods and another node's reach each other", || {
                    probe::ping(&pod.net, stays.pod_ip)?;
                    probe::ping(&stays.pod, pod.v4()?)
                })?;
            }
            taken.truncate(pods.len() + 1);
            node.netd.kill9()?;
            node.netd.restart()?;
        }
        let text = node.netd.cli(&["status"])?;
        ensure!(text.contains("foreign-pods") && text.contains("container old0"), "{text}");
        pods[3].del_by_netd(&node.host)?;
        ensure!(!cbr0.reservation(&node.host, pods[3].v4()?).exists());
        // Asked by root for no pod: a pod may not choose its address on this network.
        let next = Sandbox::bare(&node.host, "next")?;
        let addresses = vec![pods[3].v4()?.to_string()];
        node.netd.attach(AttachRequest { addresses, pod: None, ..next.request() })?;
        Ok(())
    })
}

fn bridge_mac(host: &testbed::Host) -> Result<String> {
    let link = host.net.sh("ip -o link show cni0")?;
    let (_, mac) = link.split_once("link/ether ").context("no MAC")?;
    Ok(mac.split(' ').next().unwrap_or_default().to_owned())
}

/// Where both are flannel's, netd's restart changes nothing: it adopts what is there.
#[test]
fn the_device_outlives_restarts_with_the_same_mac() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = cluster.pods()?;
        let node = cluster.nodes.first_mut().context("no node")?;
        let own =
            node.host.net.sh("ip -o -4 address show dev flannel.1 | sed 's|.*inet ||; s|/.*||'")?;
        let has_ports = |host: &testbed::Host| {
            wait::until(SOON, "host ports are on flannel.1's address too", || {
                let set = host.net.sh("nft list set inet netd node4")?;
                ensure!(set.contains(own.trim()), "{own} is not in {set}");
                Ok(())
            })
        };
        has_ports(&node.host)?;
        let (mac, kernel) = (flannel::mac_of(&node.host)?, testbed::inventory::of(&node.host)?);
        node.netd.kill9()?;
        node.netd.restart()?;
        has_ports(&node.host)?;
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
