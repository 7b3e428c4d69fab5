//! The cluster's configuration, nodes' addresses and the underlay change: followed
//! without a restart.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, network_config, reach},
    wait,
};

use super::{SOON, backend, mtu, pings};

#[test]
fn another_backend_is_taken_without_a_restart() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")))?;
        cluster.nodes.iter_mut().try_for_each(|node| node.need_tunnel())?;
        let pods = cluster.pods()?;
        let pids: Vec<u32> = cluster.nodes.iter().map(|node| node.netd.pid()).collect();
        let ways = [
            (backend("host-gw"), "host-gw", 1500),
            (backend("udp"), "", 1472),
            (backend("wireguard"), "wireguard", 1420),
            (json!({"Type": "vxlan", "VNI": 2}), "vxlan", 1430),
        ];
        for (config, name, size) in ways {
            cluster.configure(&network_config(Families::Dual, config.clone()))?;
            let changed = Instant::now();
            wait::until(SOON, "all follow", || {
                for node in &cluster.nodes {
                    let listed = node.listed()?;
                    let right = listed.nodes.iter().all(|n| n.backend == name && n.programmed);
                    ensure!(right && listed.nodes.len() == 3, "{config}: {:?}", listed.nodes);
                }
                for pod in &pods {
                    ensure!(mtu(&pod.net, "eth0")? == size, "{} of {size}", mtu(&pod.net, "eth0")?);
                }
                Ok(())
            })?;
            println!("{config}: in force everywhere after {:.1?}", changed.elapsed());
            reach::all_pairs(&pods, Families::Dual).with_context(|| config.to_string())?;
            reach::largest(&pods, size)?;
        }
        let now: Vec<u32> = cluster.nodes.iter().map(|node| node.netd.pid()).collect();
        ensure!(pids == now, "a netd was restarted");
        for node in &cluster.nodes {
            let links = node.host.net.sh("ip -o link show")?;
            for gone in ["flannel.1:", "flannel-v6.1:", "flannel0:", "flannel-wg:"] {
                ensure!(!links.contains(gone), "{gone} is left:\n{links}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_config_that_cannot_be_read_changes_nothing_and_is_said() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = cluster.pods()?;
        let [one, two] = &pods[..] else { return Ok(()) };
        let wrong = [
            (json!({"Network": "10.5.0.0/16", "Backend": {"Type": "nonsense"}}), "Type"),
            (json!({"Network": "10.5.0.0/99", "Backend": {"Type": "vxlan"}}), "Network"),
            (json!({"Network": "10.5.0.0/16", "SubnetLen": 40}), "SubnetLen"),
            (json!({"Network": "10.5.0.0/16", "SubnetMin": "1.2.3.4"}), "SubnetMin"),
            (json!({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": -1}}), "VNI"),
            (
                json!({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "Port": 70000}}),
                "Port",
            ),
            (
                json!({"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "DirectRouting": "x"}}),
                "DirectRouting",
            ),
            (json!({"EnableIPv6": true, "Network": "10.5.0.0/16"}), "IPv6Network"),
            (json!([]), "config"),
        ];
        for (config, field) in wrong {
            cluster.configure(&config)?;
            for node in &cluster.nodes {
                wait::until(SOON, "it is said", || {
                    let problem = node.problem("overlay/config")?;
                    ensure!(problem.contains(field), "{config}: `{problem}` names no {field}");
                    Ok(())
                })?;
                ensure!(node.netd.status()?.ready);
            }
            pings(one, two)?;
        }
        cluster.configure(&cluster.plan.config)?;
        for node in &cluster.nodes {
            wait::until(SOON, "all is well again", || {
                let problem = node.problem("overlay/config")?;
                ensure!(problem.is_empty(), "{problem}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn another_address_of_a_node_is_told_to_all() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")))?;
        let pods = cluster.pods()?;
        let [one, two, three] = &pods[..] else { return Ok(()) };
        let moved = cluster.nodes.get(1).context("no node")?;
        let subnets = moved.subnets()?;
        let (old4, old6) = (moved.host.v4, moved.host.v6);
        moved.host.net.sh(&format!(
            "ip address add 192.0.2.200/24 dev eth0
             ip -6 address add 2001:db8::c8/64 dev eth0 nodad
             ip address delete {old4}/24 dev eth0; ip -6 address delete {old6}/64 dev eth0
             ip route replace default via 192.0.2.1; ip -6 route replace default via 2001:db8::1"
        ))?;
        let start = Instant::now();
        wait::until(SOON, "its pods are reached at the new one", || {
            pings(one, two)?;
            pings(two, three)?;
            pings(three, two)
        })?;
        println!("reached at the new address after {:.1?}", start.elapsed());
        ensure!(moved.subnets()? == subnets, "another subnet was taken");
        for node in &cluster.nodes {
            let listed = node.knows(subnets.first().context("none")?)?.context("unknown")?;
            ensure!(listed.public_ip == "192.0.2.200", "{listed:?}");
            ensure!(listed.public_ipv6 == "2001:db8::c8", "{listed:?}");
        }
        Ok(())
    })
}

#[test]
fn another_mtu_of_the_underlay_is_followed() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")))?;
        let pods = cluster.pods()?;
        for size in [1400, 1500] {
            for node in &cluster.nodes {
                node.host.net.sh(&format!("ip link set eth0 mtu {size}"))?;
            }
            wait::until(Duration::from_secs(3), "pods and devices follow", || {
                for (node, pod) in cluster.nodes.iter().zip(&pods) {
                    let seen = [mtu(&node.host.net, "flannel.1")?, mtu(&pod.net, "eth0")?];
                    ensure!(seen == [size - 50; 2], "{seen:?}");
                    let file = std::fs::read_to_string(node.subnet_file())?;
                    ensure!(file.contains(&format!("FLANNEL_MTU={}\n", size - 50)), "{file}");
                }
                Ok(())
            })?;
            reach::largest(&pods, size - 50)?;
            let late = Sandbox::attached(&cluster.nodes[0].host, "late")?;
            ensure!(mtu(&late.net, "eth0")? == size - 50);
        }
        Ok(())
    })
}
