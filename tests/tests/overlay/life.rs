//! Nodes that die and come back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Cluster, Plan, Sandbox, case,
    cluster::{Families, traffic::AllPairs},
    wait,
};

use super::{SOON, backend, pings};

#[test]
fn routes_to_a_dead_node_go_and_it_gets_its_subnet_back() -> Result<()> {
    case(|bed| {
        let plan = Plan::new(Families::Dual, backend("vxlan")).overlay("lease_ttl = \"5s\"");
        let mut cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        let [one, two, _] = &pods[..] else { return Ok(()) };
        let traffic = AllPairs::start(&[one, two], 100)?;
        let dead = cluster.nodes.last_mut().context("no node")?;
        let subnets = dead.subnets()?;
        let died = Instant::now();
        dead.die()?;
        for node in cluster.nodes.iter().take(2) {
            wait::until(Duration::from_secs(20), "its routes are gone", || {
                let routes = node.routes()?;
                let left = subnets.iter().find(|subnet| routes.contains(subnet.as_str()));
                ensure!(left.is_none(), "{left:?} in\n{routes}");
                ensure!(node.listed()?.nodes.len() == 2, "{:?}", node.listed()?.nodes);
                let entries = node
                    .host
                    .net
                    .sh("bridge fdb show dev flannel.1; ip neigh show nud permanent")?;
                ensure!(!entries.contains(&dead_address(&plan)), "{entries}");
                Ok(())
            })?;
        }
        println!("gone everywhere {:.1?} after its death, leases last 5 s", died.elapsed());
        let dead = cluster.nodes.last_mut().context("no node")?;
        dead.come_back()?;
        dead.wait_ready()?;
        cluster.wait_converged()?;
        let back = cluster.nodes.last().context("no node")?;
        ensure!(back.subnets()? == subnets, "{:?}, not {subnets:?}", back.subnets()?);
        let fresh = Sandbox::attached(&back.host, "fresh")?;
        wait::until(SOON, "its pods are reached", || pings(one, &fresh))?;
        traffic.finish_without_loss("a third node died and came back")
    })
}

/// etcd0, n0, n1, n2 are plugged in in this order.
fn dead_address(plan: &Plan) -> String {
    format!("192.0.2.{} ", 10 + plan.members + 2)
}

#[test]
fn a_leftover_of_a_peer_that_went_away_meanwhile_is_removed_and_others_routes_are_not() -> Result<()>
{
    case(|bed| {
        let plan = Plan::new(Families::V4, backend("host-gw")).overlay("lease_ttl = \"5s\"");
        let mut cluster = Cluster::start(bed, &plan)?;
        let gone = cluster.nodes.pop().context("no node")?;
        let subnet = gone.subnets()?.first().context("no subnet")?.clone();
        let node = cluster.nodes.first_mut().context("no node")?;
        // Of another program's, also inside the cluster's network.
        node.host.net.sh("ip route add 10.5.250.0/24 via 192.0.2.1 proto static")?;
        node.netd.kill9()?;
        drop(gone);
        wait::until(Duration::from_secs(20), "its lease ends", || {
            let leases = cluster.leases()?;
            ensure!(!leases.iter().any(|(key, _)| key.replace('-', "/") == subnet), "{leases:?}");
            Ok(())
        })?;
        let node = cluster.nodes.first_mut().context("no node")?;
        ensure!(node.routes()?.contains(&subnet), "it was killed before it could remove it");
        node.netd.restart()?;
        wait::until(SOON, "the leftover is removed", || {
            let routes = node.routes()?;
            ensure!(!routes.contains(&subnet), "{routes}");
            Ok(())
        })?;
        ensure!(node.routes()?.contains("10.5.250.0/24"), "another program's route is gone");
        Ok(())
    })
}
