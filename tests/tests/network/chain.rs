//! Plugins that come after netd in a chain, and second interfaces: nobody undoes what another one
//! has done.

use std::{io::Write as _, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::Driver;
use serde_json::{Value, json};
use testbed::{
    DaemonConfig, Sandbox, case,
    hook::{Answer, Call},
    net::probe,
    paths, wait,
};

use crate::node::{Node, network};

/// One interface of a pod as the runtime knows it.
struct Interface {
    name: &'static str,
    network: &'static str,
    default_route: Option<bool>,
    /// Of the whole chain.
    result: Value,
}

impl Interface {
    fn new(name: &'static str, network: &'static str) -> Self {
        Self { name, network, default_route: None, result: Value::Null }
    }

    fn call(&self, pod: &Sandbox, command: &str) -> Call {
        let mut call = pod.call(command);
        call.variables.retain(|(name, _)| name != "CNI_IFNAME");
        call.variables.push(("CNI_IFNAME".to_owned(), self.name.to_owned()));
        let mut config = pod.config.clone();
        config["network"] = json!(self.network);
        if let Some(flag) = self.default_route {
            config["defaultRoute"] = json!(flag);
        }
        if command == "CHECK" {
            config["prevResult"] = self.result.clone();
        }
        call.stdin = config.to_string().into_bytes();
        call
    }

    fn add(&mut self, node: &Node, pod: &Sandbox) -> Result<()> {
        self.result = self.call(pod, "ADD").execute(&node.host)?.ok()?;
        Ok(())
    }

    fn check(&self, node: &Node, pod: &Sandbox) -> Result<Answer> {
        self.call(pod, "CHECK").execute(&node.host)
    }

    fn del(&self, node: &Node, pod: &Sandbox) -> Result<()> {
        self.call(pod, "DEL").execute(&node.host)?.ok().map(drop)
    }

    fn ip(&self, v6: bool) -> Result<std::net::IpAddr> {
        let ips = self.result["ips"].as_array().into_iter().flatten();
        let mut ips = ips.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok());
        ips.find(|ip: &std::net::IpAddr| ip.is_ipv6() == v6).context("no address")
    }

    /// Runs one of the distribution's plugins after netd.
    fn chained(&self, node: &Node, pod: &Sandbox, command: &str, own: &Value) -> Result<Value> {
        let mut config = own.clone();
        config["cniVersion"] = json!("1.0.0");
        config["name"] = json!("default");
        let mut prev = self.result.clone();
        prev["cniVersion"] = json!("1.0.0");
        // Keys that came with 1.1.0.
        for interface in prev["interfaces"].as_array_mut().into_iter().flatten() {
            interface.as_object_mut().map(|all| all.remove("mtu"));
        }
        config["prevResult"] = prev;
        let name = own["type"].as_str().context("no type")?;
        let program = paths::fetched("cni-1.9")?.join("usr/lib/cni").join(name);
        let call = self.call(pod, command);
        let mut child = node
            .host
            .net
            .command(program)
            .env("CNI_COMMAND", command)
            .envs(call.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("no stdin")?.write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{name} {command}: {said}");
        match said.trim() {
            "" => Ok(Value::Null),
            text => {
                let mut result: Value = serde_json::from_str(text)?;
                result["cniVersion"] = json!("1.1.0");
                Ok(result)
            }
        }
    }
}

const MAC: &str = "02:00:00:00:00:42";

/// tuning sets MTU, MAC, promiscuous mode and a sysctl: they stay, over a restart too, both
/// plugins' CHECKs pass, and the pod is reached.
fn tuned(driver: &str) -> Result<()> {
    case(|bed| {
        let mut node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let outside = bed.host("outside")?;
        let other = node.attached("other")?;
        let pod = node.bare("pod")?;
        let mut eth0 = Interface::new("eth0", "default");
        eth0.add(&node, &pod)?;
        let tuning = json!({"type": "tuning", "mtu": 1300, "mac": MAC, "promisc": true,
            "sysctl": {"net.ipv4.conf.eth0.log_martians": "1"},
            "dataDir": node.host.directory().join("tuning")});
        eth0.result = eth0.chained(&node, &pod, "ADD", &tuning)?;
        for restart in [false, true] {
            if restart {
                node.netd.kill9()?;
                node.netd.restart()?;
            }
            wait::pause(Duration::from_millis(500));
            let shown =
                pod.net.sh("ip -d -o link show eth0; sysctl net.ipv4.conf.eth0.log_martians")?;
            for wanted in ["mtu 1300", MAC, "promiscuity 1", "log_martians = 1"] {
                ensure!(shown.contains(wanted), "{wanted} was undone: {shown}");
            }
            eth0.check(&node, &pod)?.ok()?;
            eth0.chained(&node, &pod, "CHECK", &tuning)?;
            for v6 in [false, true] {
                let to = if v6 { other.v6()? } else { other.v4()? };
                probe::ping(&pod.net, to)?;
                probe::ping(&other.net, eth0.ip(v6)?)?;
            }
            probe::ping(&pod.net, outside.v4.into())?;
            probe::ping(&pod.net, outside.v6.into())?;
        }
        eth0.chained(&node, &pod, "DEL", &tuning)?;
        eth0.del(&node, &pod)?;
        other.del(&node.host)?;
        node.nothing_left()
    })
}

#[test]
fn what_tuning_sets_after_netd_on_a_bridge_stays() -> Result<()> {
    tuned("bridge")
}

#[test]
fn what_tuning_sets_after_netd_on_a_routed_pod_stays() -> Result<()> {
    tuned("routed")
}

#[test]
fn a_mac_that_belongs_to_another_one_is_not_followed() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (pod, other, third) =
            (node.attached("pod")?, node.attached("other")?, node.attached("third")?);
        let mac = node.endpoint(&other)?.mac;
        pod.net.sh(&format!("ip link set eth0 address {mac}"))?;
        wait::pause(Duration::from_millis(500));
        ensure!(probe::ping(&pod.net, third.v4()?).is_err(), "it sends with another pod's MAC");
        probe::ping(&other.net, third.v4()?)?;
        probe::ping(&third.net, other.v6()?)
    })
}

/// A pod with eth0 in `default` and net1 in `blue`, and another one in both.
fn several(default: &str, blue: Driver, asks: bool, sbr: bool) -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &DaemonConfig::with_driver(default))?;
        let outside = bed.host("outside")?;
        node.netd.create_network(network("blue", blue, &["10.77.0.0/24", "fd00:77::/64"]))?;
        let peer = node.to("peer", "blue")?;
        let pod = node.bare("pod")?;
        let (mut eth0, mut net1) =
            (Interface::new("eth0", "default"), Interface::new("net1", "blue"));
        net1.default_route = asks.then_some(true);
        eth0.add(&node, &pod)?;
        net1.add(&node, &pod)?;
        if sbr {
            net1.result = net1.chained(&node, &pod, "ADD", &json!({"type": "sbr"}))?;
        }
        let leads_out = if asks && !sbr { "net1" } else { "eth0" };
        for to in [outside.v4.to_string(), outside.v6.to_string()] {
            let way = pod.net.sh(&format!("ip route get {to}"))?;
            ensure!(way.contains(&format!("dev {leads_out}")), "{to}: {way}");
        }
        let eth0_way =
            pod.net.sh("ip route show default dev eth0; ip -6 route show default dev eth0")?;
        ensure!(eth0_way.lines().count() == 2, "eth0 lost a default route: {eth0_way}");
        for interface in [&eth0, &net1] {
            let answer = interface.check(&node, &pod)?;
            ensure!(answer.success, "CHECK of {}: {answer:?}", interface.name);
        }
        for v6 in [false, true] {
            probe::ping(&pod.net, if v6 { outside.v6.into() } else { outside.v4.into() })?;
            // sbr takes the routes out of the table that unbound sockets look into.
            if !sbr {
                probe::ping(&pod.net, if v6 { peer.v6()? } else { peer.v4()? })?;
            }
            probe::ping(&peer.net, net1.ip(v6)?)?;
        }
        // DEL of eth0 leaves net1 as it is.
        let before = pod.net.sh("ip -o address show dev net1; ip route show table all dev net1")?;
        eth0.del(&node, &pod)?;
        wait::pause(Duration::from_millis(300));
        let after = pod.net.sh("ip -o address show dev net1; ip route show table all dev net1")?;
        ensure!(before == after, "{before}\n{after}");
        for v6 in [false, true] {
            probe::ping(&peer.net, net1.ip(v6)?)?;
        }
        net1.del(&node, &pod)?;
        peer.del(&node.host)?;
        wait::until(Duration::from_secs(5), "blue is deleted", || {
            Ok(node.netd.delete_network("blue")?)
        })?;
        node.nothing_left()
    })
}

#[test]
fn a_second_interface_takes_no_default_route() -> Result<()> {
    several("bridge", Driver::Bridge, false, false)
}

#[test]
fn a_second_routed_interface_takes_no_default_route() -> Result<()> {
    several("bridge", Driver::Routed, false, false)
}

#[test]
fn two_routed_interfaces_have_one_default_route() -> Result<()> {
    several("routed", Driver::Routed, false, false)
}

#[test]
fn a_second_interface_beside_a_routed_one_takes_no_default_route() -> Result<()> {
    several("routed", Driver::Bridge, false, false)
}

#[test]
fn a_second_interface_that_asks_leads_out_and_the_first_ones_route_stays() -> Result<()> {
    several("bridge", Driver::Bridge, true, false)
}

#[test]
fn a_second_routed_interface_that_asks_leads_out() -> Result<()> {
    several("routed", Driver::Routed, true, false)
}

#[test]
fn with_sbr_chained_both_interfaces_work() -> Result<()> {
    several("bridge", Driver::Bridge, false, true)
}

#[test]
fn with_sbr_chained_beside_a_routed_interface_both_work() -> Result<()> {
    several("routed", Driver::Bridge, false, true)
}

#[test]
fn the_default_route_of_another_plugins_interface_is_not_taken() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        pod.net.sh("ip link add other0 type bridge; ip link set other0 up
             ip address add 192.0.2.2/24 dev other0; ip -6 address add 2001:db8:7::2/64 dev other0 nodad
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8:7::1")?;
        let mut net1 = Interface::new("net1", "default");
        net1.add(&node, &pod)?;
        let routes = net1.result["routes"].to_string();
        ensure!(!routes.contains("0.0.0.0/0") && !routes.contains("::/0"), "{routes}");
        let shown = pod.net.sh("ip route show default; ip -6 route show default")?;
        ensure!(shown.contains("192.0.2.1") && shown.contains("2001:db8:7::1"), "{shown}");
        ensure!(!shown.contains("net1"), "{shown}");
        let answer = net1.check(&node, &pod)?;
        ensure!(answer.success, "{answer:?}");
        net1.del(&node, &pod)?;
        node.nothing_left()
    })
}
