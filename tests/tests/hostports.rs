//! Host ports: every protocol, family and side that they can be reached from.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Sandbox, case, inventory,
    net::probe::{self, Mirror},
    stack::check_nothing_left,
};

const POD_PORT: u16 = 7000;
const HOST_PORT: u16 = 8080;
const BOTH: [(u16, u16, &str, &str); 2] =
    [(HOST_PORT, POD_PORT, "tcp", ""), (HOST_PORT, POD_PORT, "udp", "")];

struct Node {
    _mirror: Mirror,
    pod: Sandbox,
    other: Sandbox,
    _netd: Daemon,
    outside: Host,
    host: Host,
}

impl Node {
    fn start(bed: &Bed, driver: &str) -> Result<Self> {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        let netd = Daemon::start(&host, &DaemonConfig::with_driver(driver))?;
        let pod = Sandbox::with_ports(&host, "pod", &BOTH)?;
        let other = Sandbox::attached(&host, "other")?;
        let mirror = Mirror::serve(&pod.net, POD_PORT)?;
        Ok(Self { _mirror: mirror, pod, other, _netd: netd, outside, host })
    }

    fn addresses(&self) -> [IpAddr; 2] {
        [self.host.v4.into(), self.host.v6.into()]
    }
}

fn both(from: &testbed::Namespace, to: IpAddr) -> Result<[IpAddr; 2]> {
    Ok([probe::tcp(from, to, HOST_PORT)?, probe::udp(from, to, HOST_PORT)?])
}

fn reachable_from_everywhere(driver: &str) -> Result<()> {
    case(|bed| {
        let node = Node::start(bed, driver)?;
        for (address, client) in node
            .addresses()
            .into_iter()
            .zip([IpAddr::from(node.outside.v4), node.outside.v6.into()])
        {
            let seen = both(&node.outside.net, address).context("from outside")?;
            ensure!(seen == [client; 2], "the pod sees the client itself, not {seen:?}");
            both(&node.host.net, address).context("from the host's own address")?;
            both(&node.other.net, address).context("from another pod")?;
            both(&node.pod.net, address).context("from the pod itself")?;
        }
        both(&node.host.net, Ipv4Addr::LOCALHOST.into()).context("from the host over 127.0.0.1")?;
        Ok(())
    })
}

#[test]
fn a_host_port_on_a_bridge_is_reachable_from_everywhere() -> Result<()> {
    reachable_from_everywhere("bridge")
}

#[test]
fn a_host_port_of_a_routed_pod_is_reachable_from_everywhere() -> Result<()> {
    reachable_from_everywhere("routed")
}

#[test]
fn a_host_port_with_a_host_ip_is_on_that_address_only() -> Result<()> {
    case(|bed| {
        let (host, outside) = (bed.host("node")?, bed.host("outside")?);
        host.net.sh("ip address add 192.0.2.200/24 dev eth0")?;
        let _netd = Daemon::start(&host, &DaemonConfig::default())?;
        let ports = [(HOST_PORT, POD_PORT, "tcp", "192.0.2.200")];
        let pod = Sandbox::with_ports(&host, "pod", &ports)?;
        let _mirror = Mirror::serve(&pod.net, POD_PORT)?;
        let bound = Ipv4Addr::new(192, 0, 2, 200).into();
        probe::tcp(&outside.net, bound, HOST_PORT)?;
        for elsewhere in [IpAddr::from(host.v4), host.v6.into()] {
            ensure!(probe::tcp(&outside.net, elsewhere, HOST_PORT).is_err(), "{elsewhere}");
        }
        Ok(())
    })
}

#[test]
fn a_port_that_is_taken_is_refused_and_nothing_is_half_made() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let netd = Daemon::start(&host, &DaemonConfig::default())?;
        let before = inventory::of(&host)?;
        let first = Sandbox::with_ports(&host, "first", &BOTH)?;
        let mut second = Sandbox::bare(&host, "second")?;
        second.config["runtimeConfig"] = first.config["runtimeConfig"].clone();
        let refused = second.call("ADD").execute(&host)?;
        ensure!(!refused.success && refused.json.to_string().contains("8080"), "{refused:?}");
        ensure!(netd.endpoints()?.len() == 1);
        let links = second.net.sh("ip -o link")?;
        ensure!(links.lines().count() == 1, "only lo: {links}");
        first.del(&host)?;
        // With the first gone, the port is free.
        second.add(&host)?;
        second.del(&host)?;
        check_nothing_left(&host, &netd, &before)
    })
}
