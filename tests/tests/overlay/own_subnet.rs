//! The way to the node's own pods, and the alarm about a subnet that it lost: what another program
//! leads elsewhere is taken back or told, and no alarm outlives its cause.

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, Node, PREFIX, flannel},
    net::probe,
    wait,
};

use super::{SOON, backend};

/// What the kernel's main table has for exactly this destination.
fn routes_to(node: &Node, net: &str, rest: &str) -> Result<String> {
    let family = if net.contains(':') { "-6" } else { "-4" };
    Ok(node.host.net.sh(&format!("ip {family} route show {net} {rest}"))?.trim().to_owned())
}

/// The first half of a subnet.
fn half(subnet: &str) -> Result<String> {
    let (address, length) = subnet.split_once('/').context("a subnet")?;
    Ok(format!("{address}/{}", length.parse::<u8>()? + 1))
}

fn unreachable_pods(node: &Node) -> Result<String> {
    node.netd.cli(&["status"]).or_else(|error| Ok(error.to_string()))
}

#[test]
fn flannels_leftovers_over_overlay_devices_are_removed() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")).nodes(2))?;
        let node = &cluster.nodes[0];
        let pod = Sandbox::attached(&node.host, "pod")?;
        for subnet in node.subnets()? {
            let device = if subnet.contains(':') { "flannel-v6.1" } else { "flannel.1" };
            let first = subnet.split('/').next().context("a subnet")?;
            for to in [subnet.clone(), half(&subnet)?] {
                let script = format!("ip route add {to} via {first} dev {device} onlink");
                // In IPv4 the whole subnet's has the metric of the connected route already.
                let _ = node.host.net.sh(&script);
                wait::until(SOON, &format!("{to} over {device} is gone"), || {
                    let left = routes_to(node, &to, &format!("dev {device}"))?;
                    ensure!(left.is_empty(), "{left}");
                    pod.ips.iter().try_for_each(|ip| probe::ping(&node.host.net, *ip))
                })?;
            }
        }
        wait::until(SOON, "it is ready", || {
            ensure!(node.netd.status()?.ready, "{}", node.problem("overlay")?);
            Ok(())
        })
        .map(drop)
    })
}

#[test]
fn an_administrators_route_is_told_and_left() -> Result<()> {
    case(|bed| {
        let mut cluster =
            Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")).nodes(2))?;
        let node = &cluster.nodes[0];
        let subnets = node.subnets()?;
        let mut routes = Vec::new();
        for subnet in &subnets {
            let via = if subnet.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
            routes.push(format!("{} via {via} dev eth0", half(subnet)?));
            routes.push(format!("blackhole {}", half(subnet)?));
        }
        for route in &routes {
            node.host.net.sh(&format!("ip route add {route}"))?;
            wait::until(SOON, &format!("{route} is told"), || {
                let said = node.problem("overlay")?;
                let part = route.split(' ').find(|part| part.contains('/')).context("no net")?;
                ensure!(said.contains(part) && said.contains("ip route delete"), "{said:?}");
                ensure!(!node.netd.status()?.ready);
                Ok(())
            })?;
            let shown = unreachable_pods(node)?;
            ensure!(shown.contains("own pods"), "{shown}");
            let net = route.trim_start_matches("blackhole ").split(' ').next().context("net")?;
            ensure!(!routes_to(node, net, "")?.is_empty(), "{route} was removed");
            node.host.net.sh(&format!("ip route delete {route}"))?;
            wait::until(SOON, "it is ready again", || {
                ensure!(node.netd.status()?.ready, "{}", node.problem("overlay")?);
                Ok(())
            })?;
        }
        // Also one that was there before netd.
        cluster.nodes[0].netd.kill9()?;
        cluster.nodes[0].host.net.sh(&format!("ip route add {}", routes[0]))?;
        cluster.nodes[0].netd.respawn()?;
        let node = &cluster.nodes[0];
        wait::until(SOON, "it is told after a start", || {
            let said = node.problem("overlay")?;
            ensure!(said.contains("own pods"), "{said:?}");
            Ok(())
        })
        .map(drop)
    })
}

/// Takes the node's subnet away as a person or flannel does; what etcd had of it.
fn take_away(cluster: &Cluster, node: &Node) -> Result<[(String, String); 2]> {
    let name = node.subnets()?.remove(0).replace('/', "-");
    let keys = [format!("{PREFIX}/subnets/{name}"), format!("/netd/v1/cluster/owners/{name}")];
    let value = |key: &str| cluster.etcd.ctl(&["get", "--print-value-only", key]);
    let values = [value(&keys[0])?, value(&keys[1])?];
    cluster.etcd.ctl(&["del", &keys[1]])?;
    let foreign = flannel::vxlan_value("192.0.2.222".parse()?, "02:00:00:00:02:22");
    flannel::put_lease(&cluster.etcd, &name, &foreign, 3600)?;
    wait::until(SOON, "the alarm", || {
        let said = node.problem("overlay/lost")?;
        ensure!(said.contains("delete them"), "{said:?}");
        Ok(())
    })?;
    let [lease, owner] = keys;
    let [first, second] = values;
    Ok([(lease, first), (owner, second)])
}

#[test]
fn the_alarm_goes_when_the_subnet_is_back() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(1))?;
        let node = &cluster.nodes[0];
        let pod = Sandbox::attached(&node.host, "pod")?;
        let had = node.subnets()?;
        for (key, value) in take_away(&cluster, node)? {
            cluster.etcd.ctl(&["put", &key, value.trim()])?;
        }
        wait::until(SOON, "no alarm", || {
            let said = node.problem("overlay/lost")?;
            ensure!(said.is_empty(), "{said}");
            Ok(())
        })?;
        let own: Vec<String> = node.own()?.into_iter().flat_map(|own| own.subnets).collect();
        ensure!(own.contains(&had[0]), "{own:?}");
        probe::ping(&node.host.net, pod.v4()?)
    })
}

#[test]
fn the_alarm_goes_with_the_last_pod_of_the_subnet() -> Result<()> {
    case(|bed| {
        // Looked at four times as often.
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let cluster = Cluster::start(bed, &plan.overlay("keep_empty = \"4s\""))?;
        let node = &cluster.nodes[0];
        let pods = [Sandbox::attached(&node.host, "a")?, Sandbox::attached(&node.host, "b")?];
        take_away(&cluster, node)?;
        pods[0].del(&node.host)?;
        let said = node.problem("overlay/lost")?;
        ensure!(said.contains("delete them"), "one pod is left: {said:?}");
        pods[1].del(&node.host)?;
        wait::until(SOON, "no alarm", || {
            let said = node.problem("overlay/lost")?;
            ensure!(said.is_empty(), "{said}");
            Ok(())
        })
        .map(drop)
    })
}
