//! Two nodes of one cluster, each with a dockerd and a containerd: all containers and pods
//! reach each other with their own addresses, in both ways that netd has for Docker.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::json;
use testbed::{
    Bed, Cluster, Containerd, Docker, DockerVersion, Plan, Version, case,
    cluster::{Families, Node, reach, reach::Member},
    cri::{self, Cri},
    docker::{NO_NETWORK, Plugin},
    net::probe::{self, Mirror},
    paths,
};

const DOCKER: [DockerVersion; 2] = [DockerVersion::V20_10, DockerVersion::V28_5];
const CONTAINERD: [Version; 2] = [Version::V2_1, Version::V1_7];
/// Two on each node, to each other one, in both families.
const WAYS: usize = 4 * 3 * 2;

fn plan() -> Plan {
    Plan::new(Families::Dual, json!({"Type": "vxlan"})).nodes(2)
}

fn pod(cri: &Cri, name: &str) -> Result<Member> {
    let pod = cri.run_pod(cri::pod(name))?;
    let mut ips = pod.ips.clone();
    ips.sort();
    Ok(Member { name: format!("pod {name}"), net: pod.net(), ips })
}

/// With a published port.
const PUBLISHED: u16 = 8080;

fn container(docker: &Docker, name: &str, network: &str) -> Result<Member> {
    let started = docker.container(&["--network", network, "-p", "8080:7000"])?;
    let ips = docker.addresses(&started.id, network)?;
    Ok(Member { name: format!("container {name}"), net: started.net, ips })
}

#[test]
fn containers_of_a_shared_network_and_pods_of_two_nodes_reach_each_other() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &plan())?;
        let mut running = Vec::new();
        let mut members = Vec::new();
        for (i, node) in cluster.nodes.iter().enumerate() {
            let (runtime, cri) = Containerd::with_hook(&node.host, CONTAINERD[i])?;
            let plugin = Plugin::start(&node.host)?;
            let docker = Docker::start(&node.host, DOCKER[i], &NO_NETWORK)?;
            let subnets = node.subnets()?;
            let mut all = vec!["network", "create", "-d", &plugin.driver];
            all.extend(["--ipam-driver", &plugin.driver, "--ipv6"]);
            all.extend(["--ipam-opt", "netd.network=default", "-o", "netd.network=default"]);
            all.extend(subnets.iter().flat_map(|subnet| ["--subnet", subnet]));
            all.push("pods");
            docker.run(&all)?;
            members.push(pod(&cri, &node.host.name)?);
            members.push(container(&docker, &node.host.name, "pods")?);
            running.push((docker, plugin, runtime));
        }
        let ways = reach::all_members(&members, Families::Dual)?;
        ensure!(ways == WAYS, "{ways} ways");
        Ok(())
    })
}

/// The node's lease as docker0's options, and a dockerd with them; what the drop-in for
/// systemd adds to its environment, and does after its start.
fn docker0(node: &Node, version: DockerVersion) -> Result<Docker> {
    let (lease, options) = (node.subnet_file(), node.host.directory().join("docker_opts"));
    let mut command = node.host.net.command(paths::built("netd")?);
    command.args(["docker-opts", "-c", "-f"]).arg(&lease).arg("-d").arg(&options);
    let output = command.arg("--socket").arg(node.netd.socket()).output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "netd docker-opts: {messages}");
    let written = fs::read_to_string(&options)?;
    let line = written.trim().strip_prefix("DOCKER_OPTS=\"").and_then(|l| l.strip_suffix('"'));
    let flags: Vec<&str> = line.with_context(|| written.clone())?.split(' ').collect();

    let path = paths::root().join("deploy/docker/docker.service.d-netd.conf");
    let drop_in = fs::read_to_string(path)?;
    let settings = |key: &str| {
        let lines = drop_in.lines().filter_map(|line| line.strip_prefix(key));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let variable = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let environment: Vec<_> =
        settings("Environment=").iter().filter_map(|line| variable(line)).collect();
    let docker = Docker::start_with(&node.host, version, &flags, &environment)?;
    for after in settings("ExecStartPost=-") {
        node.host.net.sh(&format!("set -a; . {}; {after}", lease.display()))?;
    }
    Ok(docker)
}

/// An address of docker0's subnet, and none of the pods'.
fn is_docker0s(node: &Node, ips: &[std::net::IpAddr], expected: bool) -> Result<()> {
    let networks = node.netd.networks()?;
    let texts = networks.iter().flat_map(|n| n.network.iter()).flat_map(|n| n.docker0.iter());
    let own: Vec<IpNet> = texts.map(|text| text.parse()).collect::<Result<_, _>>()?;
    ensure!(own.len() == 2, "{own:?}");
    for ip in ips {
        let is = own.iter().any(|net| net.contains(ip));
        ensure!(is == expected, "{ip} and docker0's {own:?}");
    }
    Ok(())
}

fn docker0_everywhere(bed: &Bed) -> Result<()> {
    let mut cluster = Cluster::start(bed, &plan().overlay("docker0 = true"))?;
    let outside = bed.host("outside")?;
    let mut running = Vec::new();
    let mut members = Vec::new();
    for (i, node) in cluster.nodes.iter().enumerate() {
        let docker = docker0(node, DOCKER[i])?;
        let (runtime, cri) = Containerd::with_hook(&node.host, CONTAINERD[i])?;
        let container = container(&docker, &node.host.name, "bridge")?;
        let pod = pod(&cri, &node.host.name)?;
        is_docker0s(node, &container.ips, true)?;
        is_docker0s(node, &pod.ips, false)?;
        members.extend([pod, container]);
        running.push((docker, runtime));
    }
    cluster.wait_converged()?;
    let ways = reach::all_members(&members, Families::Dual)?;
    ensure!(ways == WAYS, "{ways} ways");
    // Outside of the cluster they are hidden behind their node.
    let _mirror = Mirror::serve(&outside.net, 7000)?;
    for member in &members {
        let out = || format!("{} to the outside", member.name);
        let seen = probe::tcp(&member.net, outside.v4.into(), 7000).with_context(out)?;
        let nodes: Vec<_> = cluster.nodes.iter().map(|node| node.host.v4.into()).collect();
        ensure!(nodes.contains(&seen), "{} is seen outside as {seen}", member.name);
    }
    // A client from there stays visible to a container through its port.
    for (node, container) in cluster.nodes.iter().zip(members.iter().skip(1).step_by(2)) {
        let _mirror = Mirror::serve(&container.net, 7000)?;
        let seen = probe::tcp(&outside.net, node.host.v4.into(), PUBLISHED)?;
        ensure!(seen == std::net::IpAddr::from(outside.v4), "{}: {seen}", container.name);
    }
    // Whose which subnet is outlives netd, and what is there goes on.
    for node in &mut cluster.nodes {
        let before = fs::read_to_string(node.subnet_file())?;
        node.netd.kill9()?;
        node.netd.restart()?;
        node.wait_ready()?;
        ensure!(fs::read_to_string(node.subnet_file())? == before, "another subnet: {before}");
    }
    cluster.wait_converged()?;
    let ways = reach::all_members(&members, Families::Dual)?;
    ensure!(ways == WAYS, "{ways} ways");
    Ok(())
}

#[test]
fn containers_of_docker0_on_the_nodes_subnet_and_pods_reach_each_other() -> Result<()> {
    case(docker0_everywhere)
}
