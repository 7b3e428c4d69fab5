//! Nodes of a single address family.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    DaemonConfig, Sandbox, Stack, Version, case,
    cri::{self, v1},
    net::probe::{self, Mirror},
};

use crate::node::Node;

fn only(driver: &str, subnet: &str) -> DaemonConfig {
    DaemonConfig { networks: String::new(), ..DaemonConfig::default() }.and_network(
        "default",
        driver,
        &[subnet],
    )
}

const V4: &str = "10.66.0.0/24";
const V6: &str = "fd00:66::/64";

/// A pod of containerd has addresses of this family alone; ports, neighbours, the outside.
fn pods_of_one_family(version: Version, subnet: &str) -> Result<()> {
    case(|bed| {
        let stack = Stack::start(bed, version, &only("bridge", subnet))?;
        let outside = bed.host("outside")?;
        let cri = stack.cri()?;
        let mut config = cri::pod("one");
        config.port_mappings = vec![cri::port(v1::Protocol::Tcp, 8080, 7000)];
        let (one, two) = (cri.run_pod(config)?, cri.run_pod(cri::pod("two"))?);
        let v6 = subnet == V6;
        for pod in [&one, &two] {
            ensure!(pod.ips.len() == 1, "{:?}", pod.ips);
            ensure!(pod.ips.iter().all(|ip| ip.is_ipv6() == v6), "{:?}", pod.ips);
        }
        let address = *one.ips.first().context("an address")?;
        let (host, client) = if v6 {
            (stack.host.v6.into(), outside.v6.into())
        } else {
            (stack.host.v4.into(), outside.v4.into())
        };
        let _pod = Mirror::serve(&one.net(), 7000)?;
        let _outside = Mirror::serve(&outside.net, 7001)?;
        ensure!(Some(&probe::tcp(&two.net(), address, 7000)?) == two.ips.first());
        ensure!(probe::tcp(&outside.net, host, 8080)? == client, "the host port");
        ensure!(probe::tcp(&one.net(), client, 7001)? == host, "outwards through NAT");
        for pod in [&one, &two] {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        stack.check_nothing_left()
    })
}

#[test]
fn containerd_2_1_has_pods_with_ipv6_alone() -> Result<()> {
    pods_of_one_family(Version::V2_1, V6)
}

#[test]
fn containerd_1_7_has_pods_with_ipv6_alone() -> Result<()> {
    pods_of_one_family(Version::V1_7, V6)
}

#[test]
fn containerd_2_1_has_pods_with_ipv4_alone() -> Result<()> {
    pods_of_one_family(Version::V2_1, V4)
}

#[test]
fn a_routed_network_of_one_family_has_no_trace_of_the_other() -> Result<()> {
    for (subnet, other) in [(V6, "-4"), (V4, "-6")] {
        case(|bed| {
            let node = Node::start_with(bed, &only("routed", subnet))?;
            let (one, two) = (node.attached("one")?, node.attached("two")?);
            let to = *two.ips.first().context("an address")?;
            probe::ping(&one.net, to)?;
            let trace = one.net.sh(&format!(
                "ip {other} -o address show dev eth0 scope global; ip {other} route show default"
            ))?;
            ensure!(trace.is_empty(), "{trace}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_address_of_a_family_that_the_network_lacks_is_refused() -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &only("bridge", V4))?;
        let mut pod: Sandbox = node.bare("pod")?;
        pod.config["runtimeConfig"] = json!({"ips": ["fd00:66::5"]});
        let answer = node.add(&pod)?;
        ensure!(!answer.success && answer.json.to_string().contains("fd00:66::5"), "{answer:?}");
        node.nothing_left()
    })
}
