//! One overlay with real flannel's nodes: devices by hand, leases as flannel writes them.

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{
        Families,
        flannel::{self, FlannelNode},
    },
    net::probe::{self, Mirror},
    wait,
};

use super::{SOON, backend};

#[test]
fn pods_of_flannel_nodes_and_netd_nodes_reach_each_other() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")).nodes(2))?;
        let pods = cluster.pods()?;
        let old = FlannelNode::vxlan(bed, "flannel", "10.5.77.0/24")?;
        old.lease(&cluster.etcd)?;
        ensure!(old.follow(&cluster)? == 2, "not both netd nodes could be read");
        let mirrors = [Mirror::serve(&old.pod, 7000)?, Mirror::serve(&pods[0].net, 7000)?];
        wait::until(SOON, "netd's pods reach flannel's", || {
            pods.iter().try_for_each(|pod| probe::ping(&pod.net, old.pod_ip))
        })?;
        let seen = probe::tcp(&pods[0].net, old.pod_ip, 7000)?;
        ensure!(seen == pods[0].v4()?, "seen as {seen}");
        let seen = probe::tcp(&old.pod, pods[0].v4()?, 7000)?;
        ensure!(seen == old.pod_ip, "seen as {seen}");
        drop(mirrors);
        let known = cluster.nodes[0].knows("10.5.77.0/24")?.context("not listed")?;
        ensure!(known.programmed && known.node.is_empty(), "{known:?}");
        // flannel renews: another etcd lease, the same value. Nobody does anything.
        let node = &cluster.nodes[0];
        let before = node.metric("netd_overlay_convergence_seconds_count")?;
        for _ in 0..5 {
            old.lease(&cluster.etcd)?;
        }
        // A later reader of its value may know more keys than today's.
        let more = old.value().replace("\"VNI\":1", "\"VNI\":1,\"New\":[1]");
        let more = more.replace("\"PublicIPv6\"", "\"Later\":{\"a\":1},\"PublicIPv6\"");
        flannel::put_lease(&cluster.etcd, "10.5.77.0-24", &more, 3600)?;
        probe::ping(&pods[1].net, old.pod_ip)?;
        let known = node.knows("10.5.77.0/24")?.context("not listed")?;
        ensure!(known.programmed, "{known:?}");
        let after = node.metric("netd_overlay_convergence_seconds_count")?;
        ensure!(after - before <= 1.0, "renewals were programmed {} times", after - before);
        // Its lease ends: its routes go.
        cluster.etcd.ctl(&["del", &flannel::lease_key("10.5.77.0-24")])?;
        wait::until(SOON, "its route is gone", || {
            ensure!(!node.routes()?.contains("10.5.77.0/24"), "{}", node.routes()?);
            Ok(())
        })?;
        Ok(())
    })
}

/// What netd writes has exactly flannel's keys, in its order.
#[test]
fn leases_are_written_as_flannel_writes_them() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")).nodes(1))?;
        let node = &cluster.nodes[0];
        let leases = cluster.leases()?;
        let [(key, value)] = &leases[..] else { anyhow::bail!("{leases:?}") };
        let subnets = node.subnets()?;
        let name = subnets.iter().map(|net| net.replace('/', "-")).collect::<Vec<_>>().join("&");
        ensure!(*key == name, "{key}, not {name}");
        let expected = format!(
            "{{\"PublicIP\":\"{}\",\"PublicIPv6\":\"{}\",\"BackendType\":\"vxlan\",\
             \"BackendData\":{{\"VNI\":1,\"VtepMAC\":\"{}\"}},\
             \"BackendV6Data\":{{\"VNI\":1,\"VtepMAC\":\"{}\"}}}}",
            node.host.v4,
            node.host.v6,
            flannel::mac_of(&node.host)?,
            flannel::mac_of_device(&node.host, "flannel-v6.1")?,
        );
        ensure!(*value == expected, "{value}\n{expected}");
        Ok(())
    })
}

#[test]
fn reservations_are_honoured_and_never_rewritten() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::prepare(bed, &Plan::new(Families::V4, backend("host-gw")))?;
        let first = bed.host("n0")?;
        // For this node, by its address; for nobody in particular; for another node.
        let mine = flannel::host_gw_value(first.v4);
        flannel::reserve(&cluster.etcd, "10.5.3.0-24", &mine)?;
        let nobody = "{\"PublicIP\":\"192.0.2.99\",\"PublicIPv6\":null}";
        flannel::reserve(&cluster.etcd, "10.5.4.0-24", nobody)?;
        let node = testbed::cluster::Node::launch_on(first, &cluster.plan, &cluster.etcd)?;
        cluster.nodes.push(node);
        let node = cluster.nodes.last_mut().context("no node")?;
        node.wait_ready()?;
        ensure!(node.subnets()? == ["10.5.3.0/24"], "{:?}", node.subnets()?);
        cluster.join(bed)?;
        cluster.wait_converged()?;
        let other = &cluster.nodes[1];
        ensure!(other.subnets()? != ["10.5.4.0/24"], "a reservation was taken");
        let leases = cluster.leases()?;
        let value =
            |name: &str| leases.iter().find(|(key, _)| key == name).map(|(_, v)| v.as_str());
        ensure!(
            value("10.5.3.0-24") == Some(&mine) && value("10.5.4.0-24") == Some(nobody),
            "{leases:?}"
        );
        let detail =
            cluster.etcd.ctl(&["get", "-w", "fields", &flannel::lease_key("10.5.3.0-24")])?;
        ensure!(detail.contains("\"Lease\" : 0") && detail.contains("\"Version\" : 1"), "{detail}");
        let pods = [
            Sandbox::attached(&cluster.nodes[0].host, "a")?,
            Sandbox::attached(&cluster.nodes[1].host, "b")?,
        ];
        wait::until(SOON, "pods reach each other", || super::pings(&pods[0], &pods[1]))?;
        Ok(())
    })
}
