//! The way over from kube-flannel, node by node: running pods keep their addresses and their
//! connections, and no address is given twice.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    ApiServer, Host, Plan, Sandbox,
    bed::Bed,
    case,
    cluster::{
        Families, Node,
        flannel::{self, FlannelNode},
    },
    net::{flow::Flow, probe},
    old_plugins::{self, OldNetwork, OldPod},
    wait,
};

use super::{SOON, backend, mixed::vxlan};

/// A node of kube-flannel's with three pods that its conflist made.
fn flannel_node(bed: &Bed, api: &ApiServer, n: u8) -> Result<(FlannelNode, Vec<OldPod>)> {
    let (name, cidr) = (format!("n{n}"), format!("10.5.{n}.0/24"));
    let node = FlannelNode::vxlan(bed, &name, &cidr)?;
    api.add_node(&name, &[&cidr], &vxlan(&node))?;
    let cbr0 = OldNetwork::cbr0(&old_plugins::directories()?[1], &[&cidr]);
    let reserved = cbr0.reservation(&node.host, node.pod_ip);
    fs::create_dir_all(reserved.parent().context("no directory")?)?;
    fs::write(&reserved, "by-hand\r\neth0")?;
    let pods = (0..3).map(|pod| OldPod::add(&node.host, &cbr0, &format!("old{pod}")));
    let pods = pods.collect::<Result<_>>()?;
    Ok((node, pods))
}

fn go_over(host: Host, plan: &Plan, api: &ApiServer) -> Result<Node> {
    let name = host.name.clone();
    let (mac, said) = (flannel::mac_of(&host)?, api.annotations(&name)?);
    let mut node = Node::launch_in_kubernetes(host, plan, api)?;
    node.wait_ready()?;
    ensure!(flannel::mac_of(&node.host)? == mac, "another MAC than flannel's");
    wait::pause(Duration::from_secs(1));
    let says = api.annotations(&name)?;
    ensure!(says == said, "{says:?}, not {said:?}");
    Ok(node)
}

#[test]
fn running_pods_keep_their_addresses_and_their_traffic() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let (first, first_pods) = flannel_node(bed, &api, 1)?;
        let (second, second_pods) = flannel_node(bed, &api, 2)?;
        for (here, there) in [(&first, &second), (&second, &first)] {
            let (ip, mac) = (there.host.v4.to_string(), &there.mac);
            here.program_one(&there.subnet.to_string(), &ip, mac)?;
        }
        let there = second_pods[0].v4()?;
        probe::ping(&first_pods[0].net, there)?;
        let flow = Flow::start(&first_pods[0].net, &second_pods[0].net, there, 9000, 200)?;
        let nodes = [go_over(first.host, &plan, &api)?, go_over(second.host, &plan, &api)?];
        let mut taken: Vec<_> = first_pods.iter().flat_map(|pod| pod.ips.clone()).collect();
        taken.push(first.pod_ip);
        for n in 0..5 {
            let new = Sandbox::attached(&nodes[0].host, &format!("new{n}"))?;
            ensure!(!taken.contains(&new.v4()?), "{} was given out twice", new.v4()?);
            taken.push(new.v4()?);
            for old in first_pods.iter().chain(&second_pods) {
                wait::until(SOON, "old pods are reached", || probe::ping(&new.net, old.v4()?))?;
            }
        }
        let count = flow.finish()?;
        let lost = count.sent.saturating_sub(count.received);
        println!("while both nodes went over: {lost} of {} packets lost", count.sent);
        ensure!(lost == 0, "{count:?}");
        Ok(())
    })
}
