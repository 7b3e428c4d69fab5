//! `netd node remove`: a node that is gone blocks its subnet no longer, and one that runs is left
//! alone.

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, Node, flannel},
    wait,
};

use super::{SOON, backend, pings};

fn refusal(node: &Node, arguments: &[&str]) -> Result<String> {
    let arguments = [&["node", "remove"], arguments].concat();
    Ok(node.netd.cli(&arguments).err().with_context(|| format!("{arguments:?}"))?.to_string())
}

#[test]
fn a_dead_nodes_subnet_is_another_nodes_at_once() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("vxlan")))?;
        let pods = cluster.pods()?;
        let names: Vec<String> = cluster.nodes.iter().map(|n| n.host.name.clone()).collect();
        let subnet = cluster.nodes[2].subnets()?.remove(0);
        let asks = &cluster.nodes[0];

        let alive = refusal(asks, &[&names[1]])?;
        ensure!(alive.contains("runs") && alive.contains(&names[1]), "{alive}");
        let alive = refusal(asks, &[&subnet])?;
        ensure!(alive.contains("runs"), "{alive}");
        for own in [names[0].clone(), asks.host.v4.to_string(), asks.subnets()?.remove(0)] {
            let refused = refusal(asks, &[&own, "--force"])?;
            ensure!(refused.contains("this node itself"), "{refused}");
        }
        let unknown = refusal(asks, &["nobody"])?;
        ensure!(unknown.contains("netd node list"), "{unknown}");
        ensure!(cluster.leases()?.len() == 3);

        cluster.nodes[2].die()?;
        let said = cluster.nodes[0].netd.cli(&["node", "remove", &names[2]])?;
        ensure!(said.contains(&subnet) && said.contains("free"), "{said}");
        ensure!(cluster.leases()?.len() == 2, "{:?}", cluster.leases()?);
        let left = cluster.keys("/netd/v1/endpoints/")?;
        let of_it = subnet.replace('/', "-");
        ensure!(left.iter().all(|(key, _)| !key.starts_with(&of_it)), "{left:?}");
        wait::until(SOON, "the others forget it", || {
            ensure!(cluster.nodes[1].knows(&subnet)?.is_none());
            Ok(())
        })?;
        // The node that Kubernetes gives the podCIDR next.
        cluster.plan = cluster.plan.clone().overlay(&format!("pod_cidr = [\"{subnet}\"]"));
        let next = cluster.join(bed)?;
        ensure!(next.subnets()? == [subnet.as_str()], "{:?}", next.subnets()?);
        // The one that comes back uses what it had no longer.
        cluster.nodes[2].come_back()?;
        wait::until(SOON, "it has another subnet", || {
            ensure!(cluster.nodes[2].subnets()? != [subnet.as_str()]);
            Ok(())
        })?;
        cluster.nodes[2].wait_ready()?;
        cluster.check_nobody_shares()?;
        let pod = Sandbox::attached(&cluster.nodes[3].host, "next")?;
        wait::until(SOON, "the next one is reached", || pings(&pods[0], &pod))?;
        Ok(())
    })
}

#[test]
fn a_node_that_comes_back_takes_its_subnet_again_if_it_is_free() -> Result<()> {
    case(|bed| {
        let mut cluster =
            Cluster::start(bed, &Plan::new(Families::V4, backend("host-gw")).nodes(2))?;
        let had = cluster.nodes[1].subnets()?;
        cluster.nodes[1].die()?;
        let address = cluster.nodes[1].host.v4.to_string();
        cluster.nodes[0].netd.cli(&["node", "remove", &address])?;
        ensure!(cluster.leases()?.len() == 1);
        cluster.nodes[1].come_back()?;
        cluster.nodes[1].wait_ready()?;
        ensure!(cluster.nodes[1].subnets()? == had, "{:?}", cluster.nodes[1].subnets()?);
        cluster.wait_converged()
    })
}

#[test]
fn flannels_leases_go_by_address_or_subnet_and_only_by_force() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("host-gw")).nodes(1))?;
        let node = &cluster.nodes[0];
        for (n, target) in [(7, "192.0.2.77"), (8, "10.5.8.0/24")] {
            let value = flannel::host_gw_value("192.0.2.77".parse()?);
            flannel::put_lease(&cluster.etcd, &format!("10.5.{n}.0-24"), &value, 3600)?;
            let refused = refusal(node, &[target])?;
            ensure!(refused.contains("--force") && refused.contains("flannel"), "{refused}");
            ensure!(cluster.leases()?.len() == 2);
            let said = node.netd.cli(&["node", "remove", target, "--force", "-o", "json"])?;
            ensure!(said.contains(&format!("10.5.{n}.0/24")), "{said}");
            ensure!(cluster.leases()?.len() == 1);
        }
        Ok(())
    })
}
