//! Pods of one family over an underlay of the other, and which device is the underlay.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, case,
    cluster::{Families, Node, reach},
    wait,
};

use super::{SOON, backend, mtu, pings};

fn works(kind: &str, families: Families, v4: bool, mtu: u32) -> Result<()> {
    case(|bed| {
        let mut plan = Plan::new(families, backend(kind)).nodes(2);
        (plan.underlay_v4, plan.underlay_v6) = (v4, !v4);
        let cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        reach::all_pairs(&pods, families)?;
        reach::largest(&pods, mtu)
    })
}

#[test]
fn both_families_over_vxlan_over_ipv6() -> Result<()> {
    works("vxlan", Families::Dual, false, 1430)
}

#[test]
fn both_families_over_vxlan_over_ipv4() -> Result<()> {
    works("vxlan", Families::Dual, true, 1450)
}

#[test]
fn both_families_over_udp_over_ipv6() -> Result<()> {
    works("udp", Families::Dual, false, 1452)
}

#[test]
fn ipv4_over_wireguard_over_ipv6() -> Result<()> {
    works("wireguard", Families::V4, false, 1420)
}

/// What a node publishes, and the MTU that it works with.
fn facts(cluster: &Cluster, node: usize) -> Result<(String, u32)> {
    let own = cluster.nodes[node].own()?.pop().context("no subnet")?;
    Ok((own.public_ip, mtu(&cluster.nodes[node].host.net, "flannel.1")?))
}

/// A default route over netd's own bridge or VTEP, or a VPN's, moves no node: not while it runs,
/// nor over a restart.
#[test]
fn another_default_route_moves_no_node() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = cluster.pods()?;
        let before = facts(&cluster, 0)?;
        let vpn = "ip link add vpn0 type veth peer name vpn1; ip link set vpn1 up
                   ip link set vpn0 mtu 1300 up
                   ip address add 203.0.113.9/24 dev vpn0";
        cluster.nodes[0].host.net.sh(vpn)?;
        for device in ["vpn0", "cni0", "flannel.1"] {
            cluster.nodes[0].host.net.sh(&format!("ip route replace default dev {device}"))?;
            for restarts in [false, true] {
                if restarts {
                    cluster.nodes[0].netd.kill9()?;
                    cluster.nodes[0].netd.restart()?;
                }
                // Feeding back, the MTU would shrink with each look.
                for _ in 0..10 {
                    let now = facts(&cluster, 0)?;
                    ensure!(now == before, "{device}, restarted {restarts}: {now:?}");
                    wait::pause(Duration::from_millis(150));
                }
                pings(&pods[0], &pods[1])?;
                pings(&pods[1], &pods[0])?;
            }
        }
        let log = cluster.nodes[0].netd.logged();
        ensure!(log.contains("the underlay is eth0"), "the log does not say which was chosen");
        Ok(())
    })
}

/// A node that starts for the first time takes none of its own devices either: it says which
/// setting is missing.
#[test]
fn a_first_start_takes_no_overlay_device() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("vxlan"));
        let mut cluster = Cluster::prepare(bed, &plan)?;
        let host = bed.host("n0")?;
        host.net.sh("ip link add cni0 type bridge; ip link set cni0 up
             ip address add 10.5.99.1/24 dev cni0
             ip route delete default; ip -6 route delete default
             ip route add default via 10.5.99.2 dev cni0")?;
        cluster.nodes.push(Node::launch_on(host, &plan, &cluster.etcd)?);
        let node = &mut cluster.nodes[0];
        wait::until(SOON, "it is said", || {
            let said = node.problem("overlay")?;
            ensure!(said.contains("underlay"), "{said:?}");
            Ok(())
        })?;
        ensure!(cluster.leases()?.is_empty(), "{:?}", cluster.leases()?);
        // As soon as there is one, it goes on by itself.
        let node = &mut cluster.nodes[0];
        node.host.net.sh("ip route add default via 192.0.2.1 dev eth0 metric 50")?;
        wait::until(Duration::from_secs(40), "it is ready", || {
            ensure!(node.netd.status()?.ready, "{}", node.problem("overlay")?);
            Ok(())
        })?;
        ensure!(facts(&cluster, 0)?.0 == cluster.nodes[0].host.v4.to_string());
        Ok(())
    })
}

/// The device that other nodes know goes down for good: only then another one counts.
#[test]
fn a_device_that_is_down_is_left_for_the_default_routes() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("host-gw")).nodes(2))?;
        let node = &cluster.nodes[0];
        let before = node.own()?.pop().context("no subnet")?.public_ip;
        // Another way to the same link, with an address of its own, which does not count yet.
        node.host.net.sh(
            "ip link add link eth0 name mv0 type macvlan mode bridge; ip link set mv0 up
             ip address add 192.0.2.210/24 dev mv0
             ip route replace default via 192.0.2.1 dev mv0",
        )?;
        wait::pause(Duration::from_secs(2));
        let now = node.own()?.pop().context("no subnet")?.public_ip;
        ensure!(now == before, "{now}, not {before}, though eth0 is up");
        node.host.net.sh(&format!(
            "ip address delete {before}/24 dev eth0; ip address delete {}/64 dev eth0",
            node.host.v6
        ))?;
        wait::until(Duration::from_secs(20), "the other device's address is told", || {
            let now = node.own()?.pop().context("no subnet")?.public_ip;
            ensure!(now == "192.0.2.210", "{now}");
            Ok(())
        })
        .map(drop)
    })
}
