//! Addresses and MACs that are asked for, pools that run out, the order of reuse.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{Daemon, DaemonConfig, Sandbox, case, net::probe};

use crate::node::{Node, refused};

const V4: &str = "10.88.3.7";
const V6: &str = "fd00:88::37";
const MAC: &str = "02:42:00:00:03:07";

/// Asked for in this way, both addresses and the MAC are what the pod gets.
fn gets_what_it_asks_for(ask: impl FnOnce(&mut Sandbox)) -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let other = node.attached("other")?;
        let mut pod = node.bare("pod")?;
        ask(&mut pod);
        let result = pod.add(&node.host)?;
        ensure!(pod.v4()? == V4.parse::<IpAddr>()? && pod.v6()? == V6.parse::<IpAddr>()?);
        let shown = pod.net.sh("ip -o link show dev eth0; ip -o address show dev eth0")?;
        for wanted in [V4, V6, MAC] {
            ensure!(shown.contains(wanted), "{wanted} is not on eth0: {shown}");
        }
        ensure!(result.to_string().contains(MAC), "{result}");
        probe::ping(&other.net, pod.v4()?)?;
        probe::ping(&other.net, pod.v6()?)?;
        let mut second = node.bare("second")?;
        second.config["runtimeConfig"] = json!({"ips": [format!("{V4}/16")]});
        let taken = node.add(&second)?;
        ensure!(!taken.success && taken.json.to_string().contains(V4), "{taken:?}");
        pod.del(&node.host)?;
        other.del(&node.host)?;
        node.nothing_left()
    })
}

#[test]
fn cni_args_ask_for_addresses_and_a_mac() -> Result<()> {
    gets_what_it_asks_for(|pod| pod.arguments += &format!(";IP={V4},{V6};MAC={MAC}"))
}

#[test]
fn runtime_config_asks_for_addresses_and_a_mac() -> Result<()> {
    gets_what_it_asks_for(|pod| {
        let ips = [format!("{V4}/16"), format!("{V6}/64")];
        pod.config["runtimeConfig"] = json!({"ips": ips, "mac": MAC});
    })
}

#[test]
fn args_of_the_configuration_ask_for_addresses_and_a_mac() -> Result<()> {
    gets_what_it_asks_for(|pod| {
        pod.config["args"] = json!({"cni": {"ips": [V4, V6], "mac": MAC}});
    })
}

/// Six hosts, less the gateway.
const SMALL: &str = "10.99.0.0/29";

fn small() -> DaemonConfig {
    DaemonConfig { networks: String::new(), ..DaemonConfig::default() }.and_network(
        "default",
        "bridge",
        &[SMALL],
    )
}

#[test]
fn a_full_pool_is_try_again_later_with_its_size_and_use() -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &small())?;
        let pods: Vec<Sandbox> =
            (0..5).map(|number| node.attached(&format!("pod{number}"))).collect::<Result<_>>()?;
        let late = node.bare("late")?;
        refused(&node.add(&late)?, 11, &[SMALL, "5"])?;
        let network = node.netd.networks()?.into_iter().next().context("a network")?;
        let pool = network.pools.first().context("a pool")?;
        ensure!((pool.size, pool.used) == (5, 5), "{pool:?}");
        let freed = pods.first().context("a pod")?;
        freed.del(&node.host)?;
        // The address comes back with the link's end, which netd waits for.
        testbed::wait::until(std::time::Duration::from_secs(5), "a free address", || {
            node.add(&late)?.ok().map(drop)
        })?;
        ensure!(node.endpoint(&late)?.addresses.len() == 1);
        for pod in pods.iter().chain([&late]) {
            pod.del(&node.host)?;
        }
        node.nothing_left()
    })
}

/// Attaches and detaches once; the address it had.
fn passing(node: &Node) -> Result<IpAddr> {
    let pod = node.attached("passing")?;
    pod.del(&node.host)?;
    pod.v4()
}

fn all_released(netd: &Daemon) -> Result<()> {
    testbed::wait::until(std::time::Duration::from_secs(5), "addresses are free", || {
        ensure!(netd.addresses_used()? == 0);
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_freed_address_is_the_last_to_be_used_again_also_over_restarts() -> Result<()> {
    case(|bed| {
        let mut node = Node::start_with(bed, &small())?;
        let mut order = Vec::new();
        for round in 0..10 {
            order.push(passing(&node)?);
            all_released(&node.netd)?;
            if round == 2 {
                node.netd.restart()?;
            }
            if round == 6 {
                node.netd.kill9()?;
                node.netd.restart()?;
            }
        }
        let (first, second) = order.split_at(5);
        let mut different = first.to_vec();
        different.sort_unstable();
        different.dedup();
        ensure!(different.len() == 5, "used again while others were free: {order:?}");
        ensure!(first == second, "not the oldest first: {order:?}");
        Ok(())
    })
}

#[test]
fn the_result_of_an_add_has_all_that_a_runtime_needs() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let mut pod = node.bare("pod")?;
            pod.config["cniVersion"] = json!(version);
            let result = pod.add(&node.host)?;
            ensure!(result["cniVersion"] == json!(version), "{result}");
            let interfaces = result["interfaces"].as_array().context("no interfaces")?;
            let eth0 = interfaces.iter().position(|found| found["name"] == "eth0");
            let eth0 = eth0.context("eth0 is not among the interfaces")?;
            let ips = result["ips"].as_array().context("no ips")?;
            for ip in ips {
                ensure!(ip["interface"] == json!(eth0), "{ip} is not of eth0: {result}");
                ensure!(ip["gateway"].as_str().is_some_and(|gateway| !gateway.is_empty()));
                // `version` went with 1.0.0.
                let old = version.starts_with("0.");
                ensure!(ip["version"].is_string() == old, "{version}: {ip}");
            }
            let sandbox = &interfaces[eth0]["sandbox"];
            ensure!(*sandbox == json!(pod.net.path()), "{result}");
            let defaults = result["routes"].as_array().into_iter().flatten();
            let defaults = defaults.filter(|route| {
                [Value::from("0.0.0.0/0"), Value::from("::/0")].contains(&route["dst"])
            });
            ensure!(defaults.count() == 2, "{result}");
            pod.del(&node.host)?;
        }
        node.nothing_left()
    })
}
