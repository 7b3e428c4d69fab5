//! What another program takes away of the overlay is back within a second, and counted.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, Node},
    inventory, wait,
};

use super::{backend, pings};

const LIMIT: Duration = Duration::from_secs(1);

/// Breaks something on the first node, and waits until the kernel's state is as it was
/// and packets flow.
fn repaired(cluster: &Cluster, pods: &[Sandbox], what: &str, script: &str) -> Result<()> {
    let node = cluster.nodes.first().context("no node")?;
    all(pods)?;
    let (before, counted) = (state(node)?, counted(node)?);
    node.host.net.sh(script).with_context(|| what.to_owned())?;
    let broken = Instant::now();
    wait::until(LIMIT, what, || {
        let difference = inventory::difference(&before, &state(node)?);
        ensure!(difference.is_empty(), "(- before, + now)\n{difference}");
        ensure!(self::counted(node)? > counted, "not counted as drift");
        Ok(())
    })?;
    let took = broken.elapsed();
    wait::until(LIMIT, &format!("{what}: packets flow again"), || all(pods))?;
    println!("{what}: back after {took:.1?}, packets after {:.1?}", broken.elapsed());
    Ok(())
}

/// What the kernel holds; of devices their state, MAC and MTU, too.
fn state(node: &Node) -> Result<String> {
    let links =
        "ip -o link show | sed 's/^[0-9]*: //; s/@[^:]*:/:/; s/qdisc.*link/link/' | grep -v ^veth";
    Ok(inventory::of(&node.host)? + "\n" + &node.host.net.sh(links)?)
}

fn counted(node: &Node) -> Result<u64> {
    Ok(node.netd.status()?.drift.iter().map(|count| count.repaired).sum())
}

fn all(pods: &[Sandbox]) -> Result<()> {
    let first = pods.first().context("no pod")?;
    for other in pods.iter().skip(1) {
        pings(first, other)?;
        pings(other, first)?;
    }
    Ok(())
}

fn breaks(kind: &str, damages: &[(&str, &str)]) -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend(kind)))?;
        let pods = cluster.pods()?;
        damages.iter().try_for_each(|(what, script)| repaired(&cluster, &pods, what, script))
    })
}

#[test]
fn everything_of_vxlan_comes_back() -> Result<()> {
    breaks(
        "vxlan",
        &[
            ("the vxlan device", "ip link delete flannel.1"),
            ("the vxlan device of IPv6", "ip link delete flannel-v6.1"),
            ("a vxlan device that was set down", "ip link set flannel.1 down"),
            ("its MTU", "ip link set flannel.1 mtu 1200"),
            (
                "the routes",
                "ip route flush dev flannel.1; ip -6 route flush dev flannel-v6.1 proto 110",
            ),
            ("the neighbours", "ip neigh flush nud permanent dev flannel.1"),
            ("the neighbours of IPv6", "ip -6 neigh flush nud permanent dev flannel-v6.1"),
            (
                "the forwarding entries",
                "bridge fdb show dev flannel.1 | while read mac rest; do
                     bridge fdb del $mac dev flannel.1; done",
            ),
            (
                "the addresses",
                "ip address flush dev flannel.1; ip -6 address flush dev flannel-v6.1",
            ),
            ("the table", "nft delete table inet netd"),
            ("the bridge of the pods", "ip link delete cni0"),
        ],
    )
}

#[test]
fn everything_of_host_gw_comes_back() -> Result<()> {
    breaks(
        "host-gw",
        &[(
            "the routes",
            "for net in $(ip route | grep ' via ' | grep ^10.5 | cut -d' ' -f1); do
                ip route delete $net; done",
        )],
    )
}

#[test]
fn everything_of_udp_comes_back() -> Result<()> {
    breaks(
        "udp",
        &[
            ("the device's addresses", "ip address flush dev flannel0 scope global"),
            ("the route", "ip route delete 10.5.0.0/16"),
            ("a device that was set down", "ip link set flannel0 down"),
            ("a device's queue", "ip link set flannel0 txqueuelen 10"),
        ],
    )
}
