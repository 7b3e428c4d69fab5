//! A node goes from flannel to netd and back while its pods run: no packet is lost, no address is
//! given out twice, and nothing of netd's is left.

use std::{collections::HashSet, fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Cluster, Host, Plan, Sandbox, case,
    cluster::{Families, Flanneld, Node},
    net::{flow::Flow, probe},
    old_plugins::{self, OldNetwork, OldPod},
    paths, wait,
};

use super::{SOON, backend};

/// Packets a second of each stream.
const RATE: u32 = 50;

/// A machine with flanneld and pods of Debian's plugins.
struct Machine {
    host: Host,
    flanneld: Flanneld,
    network: OldNetwork,
    pods: Vec<OldPod>,
}

impl Machine {
    fn start(bed: &Bed, cluster: &Cluster, name: &str, flanneld: Flanneld) -> Result<Self> {
        let host = bed.host(name)?;
        flanneld.start(&host, cluster)?;
        let subnets: Vec<String> = flanneld.subnets.iter().map(ToString::to_string).collect();
        let subnets: Vec<&str> = subnets.iter().map(String::as_str).collect();
        let network = OldNetwork::cbr0(&old_plugins::directories()?[0], &subnets);
        Ok(Self { host, flanneld, network, pods: Vec::new() })
    }

    fn add_pods(&mut self, count: usize) -> Result<()> {
        for n in 0..count {
            self.pods.push(OldPod::add(&self.host, &self.network, &format!("old{n}"))?);
        }
        Ok(())
    }
}

/// Streams both ways between every pod of a machine and one pod elsewhere, in every family.
fn streams(pods: &[OldPod], far: &OldPod) -> Result<Vec<Flow>> {
    let mut flows = Vec::new();
    for (pod, port) in pods.iter().zip(9000..) {
        for (here, there) in pod.ips.iter().zip(&far.ips) {
            flows.push(Flow::start(&pod.net, &far.net, *there, port, RATE)?);
            flows.push(Flow::start(&far.net, &pod.net, *here, port, RATE)?);
        }
    }
    Ok(flows)
}

/// No packet of all streams is lost.
fn all_arrived(flows: Vec<Flow>, what: &str) -> Result<()> {
    wait::pause(Duration::from_millis(500));
    let counts: Vec<_> = flows.into_iter().map(Flow::finish).collect::<Result<_>>()?;
    let sent: u64 = counts.iter().map(|count| count.sent).sum();
    let lost: Vec<u64> = counts.iter().map(|count| count.sent - count.received).collect();
    println!("{what}: {lost:?} of {sent} packets lost");
    ensure!(sent > 500, "only {sent} packets were sent");
    ensure!(lost.iter().sum::<u64>() == 0, "{what}: {lost:?} of {sent} packets lost");
    Ok(())
}

/// The commands of the way back, as they are documented.
fn documented() -> Result<Vec<String>> {
    let text = fs::read_to_string(paths::root().join("docs/many-nodes.md"))?;
    let (_, section) = text.split_once("## And back to flannel").context("no section")?;
    let block = section.split("```").nth(1).context("no commands")?;
    let lines = block.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// Does what is documented; systemctl and etcdctl are played.
fn go_back(cluster: &Cluster, node: &mut Node, flanneld: &Flanneld) -> Result<()> {
    let state = node.host.directory().join("netd/state").display().to_string();
    let id = fs::read_to_string(format!("{state}/overlay/node-id"))?.trim().to_owned();
    for line in documented()? {
        let line = line.replace("/var/lib/netd", &state);
        let line = line.replace("$SUBNET", &flanneld.lease_name()).replace("$ID", &id);
        if line.starts_with("systemctl disable --now netd ") {
            node.netd.service().stop(SOON)?;
        } else if line == "systemctl start flanneld" {
            flanneld.start(&node.host, cluster)?;
            flanneld.follow(&node.host, cluster)?;
        } else if let Some(arguments) = line.strip_prefix("etcdctl ") {
            let arguments = arguments.replace('"', "");
            cluster.etcd.ctl(&arguments.split(' ').collect::<Vec<_>>())?;
        } else if line.starts_with("ip link set flannel") {
            node.host.net.sh(&format!("{line} || true"))?;
        } else {
            node.host.net.sh(&line)?;
        }
    }
    let left = cluster.keys("/netd/")?;
    let named = |(key, value): &&(String, String)| {
        key.contains(&id) || value.contains(&id) || key.contains(&flanneld.lease_name())
    };
    ensure!(left.iter().find(named).is_none(), "left in etcd: {left:?}");
    let links = node.host.net.sh("ip -d link show")?;
    ensure!(!links.contains("netd"), "{links}");
    let tables = node.host.net.sh("nft list tables")?;
    ensure!(!tables.contains("netd"), "{tables}");
    let routes = node.host.net.sh("ip route show proto 110; ip -6 route show proto 110")?;
    ensure!(routes.trim().is_empty(), "{routes}");
    Ok(())
}

fn there_and_back(kind: &str, families: Families) -> Result<()> {
    case(|bed| {
        let plan = Plan::new(families, backend(kind));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let flanneld = |n| Flanneld::new(kind, families, n);
        let mut old = Machine::start(bed, &cluster, "old", flanneld(20)?)?;
        let mut stays = Machine::start(bed, &cluster, "stays", flanneld(30)?)?;
        cluster.join(bed)?;
        old.add_pods(10)?;
        stays.add_pods(1)?;
        let of_netd = Sandbox::attached(&cluster.nodes[0].host, "of-netd")?;
        for machine in [&old, &stays] {
            machine.flanneld.follow(&machine.host, &cluster)?;
        }
        let far = stays.pods.remove(0);
        for ip in old.pods.iter().flat_map(|pod| &pod.ips) {
            wait::until(SOON, "all is well before", || {
                probe::ping(&far.net, *ip)?;
                probe::ping(&of_netd.net, *ip)
            })?;
        }

        let Machine { host, flanneld, network, pods } = old;
        let macs = flanneld.macs(&host)?;
        let flows = streams(&pods, &far)?;
        cluster.nodes.push(Node::launch_on(host, &plan, &cluster.etcd)?);
        cluster.nodes[1].wait_ready()?;
        cluster.wait_converged()?;
        stays.flanneld.follow(&stays.host, &cluster)?;
        wait::pause(Duration::from_secs(2));
        all_arrived(flows, &format!("{kind} to netd"))?;
        let node = &cluster.nodes[1];
        let subnets: Vec<String> = flanneld.subnets.iter().map(ToString::to_string).collect();
        ensure!(node.subnets()? == subnets, "{:?}", node.subnets()?);
        ensure!(flanneld.macs(&node.host)? == macs, "another MAC");

        let mut seen: HashSet<IpAddr> = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        for n in 0..5 {
            let pod = Sandbox::attached(&node.host, &format!("new{n}"))?;
            for ip in &pod.ips {
                ensure!(seen.insert(*ip), "{ip} was given out twice");
            }
            probe::ping(&pod.net, far.ips[0])?;
            probe::ping(&of_netd.net, pod.ips[0])?;
            pod.del(&node.host)?;
        }

        let flows = streams(&pods, &far)?;
        let mut node = cluster.nodes.remove(1);
        go_back(&cluster, &mut node, &flanneld)?;
        stays.flanneld.follow(&stays.host, &cluster)?;
        wait::pause(Duration::from_secs(2));
        all_arrived(flows, &format!("{kind} back to flannel"))?;
        ensure!(flanneld.macs(&node.host)? == macs, "another MAC");
        let leases = cluster.leases()?;
        ensure!(leases.len() == 3, "{leases:?}");
        let mut taken: HashSet<IpAddr> = pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        for n in 0..5 {
            let pod = OldPod::add(&node.host, &network, &format!("again{n}"))?;
            for ip in &pod.ips {
                ensure!(taken.insert(*ip), "{ip} was given out twice");
                wait::until(SOON, "a pod of before", || probe::ping(&far.net, *ip))?;
                wait::until(SOON, "a pod of before", || probe::ping(&of_netd.net, *ip))?;
            }
        }
        Ok(())
    })
}

#[test]
fn over_vxlan_with_ten_running_pods() -> Result<()> {
    there_and_back("vxlan", Families::V4)
}

#[test]
fn over_vxlan_of_both_families_with_ten_running_pods() -> Result<()> {
    there_and_back("vxlan", Families::Dual)
}

#[test]
fn over_host_gw_with_ten_running_pods() -> Result<()> {
    there_and_back("host-gw", Families::V4)
}

/// The reboot took the device: only the lease says which MAC the others send to.
#[test]
fn after_a_reboot_the_mac_is_the_leases() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let flanneld = |n| Flanneld::new("vxlan", Families::V4, n);
        let old = Machine::start(bed, &cluster, "old", flanneld(20)?)?;
        let mut stays = Machine::start(bed, &cluster, "stays", flanneld(30)?)?;
        stays.add_pods(1)?;
        stays.flanneld.follow(&stays.host, &cluster)?;
        let macs = old.flanneld.macs(&old.host)?;
        old.host.net.sh("ip link delete flannel.1")?;
        fs::remove_file(old.host.directory().join("subnet.env"))?;
        cluster.nodes.push(Node::launch_on(old.host, &plan, &cluster.etcd)?);
        cluster.nodes[0].wait_ready()?;
        let node = &cluster.nodes[0];
        ensure!(node.subnets()? == ["10.5.20.0/24"], "{:?}", node.subnets()?);
        ensure!(old.flanneld.macs(&node.host)? == macs, "another MAC");
        // The other node has the entries of before.
        let pod = Sandbox::attached(&node.host, "pod")?;
        probe::ping(&stays.pods[0].net, pod.v4()?)
    })
}
