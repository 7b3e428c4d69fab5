//! Nodes on two links: what goes directly, and what can't.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{
    Cluster, Plan, case,
    cluster::{Families, reach},
    wait,
};

use super::{SOON, backend, kernel_route, pings};

/// Two nodes on a link, one behind a router.
fn plan(backend: serde_json::Value) -> Plan {
    Plan::new(Families::Dual, backend).far(1)
}

fn vxlan(direct: bool) -> Result<()> {
    case(|bed| {
        let plan = plan(json!({"Type": "vxlan", "DirectRouting": direct}));
        let cluster = Cluster::start(bed, &plan)?;
        let pods = cluster.pods()?;
        reach::all_pairs(&pods, plan.families)?;
        reach::largest(&pods, 1430)?;
        let [first, second, _] = &cluster.nodes[..] else { return Ok(()) };
        let [one, two, far] = &pods[..] else { return Ok(()) };
        for ip in &far.ips {
            let way = kernel_route(first, *ip)?;
            ensure!(way.contains("dev flannel"), "{way}");
        }
        let near =
            two.ips.iter().map(|ip| (first, ip)).chain(one.ips.iter().map(|ip| (second, ip)));
        for (node, ip) in near {
            let way = kernel_route(node, *ip)?;
            ensure!(way.contains("dev eth0") == direct, "{way}");
            ensure!(node.route(*ip)?.agrees);
        }
        Ok(())
    })
}

#[test]
fn vxlan_with_direct_routing_encapsulates_only_beyond_the_link() -> Result<()> {
    vxlan(true)
}

#[test]
fn vxlan_without_direct_routing_encapsulates_everything() -> Result<()> {
    vxlan(false)
}

#[test]
fn host_gw_names_the_node_it_cannot_reach_and_serves_the_others() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::launch(bed, &plan(backend("host-gw")))?;
        let pods = cluster.pods()?;
        let [first, _, far] = &cluster.nodes[..] else { return Ok(()) };
        let [one, two, _] = &pods[..] else { return Ok(()) };
        wait::until(SOON, "the two on one link reach each other", || pings(one, two))?;
        let subnet = far.subnets()?.first().context("no subnet")?.clone();
        wait::until(SOON, "the third is named", || {
            let known = first.knows(&subnet)?.context("not there")?;
            ensure!(!known.programmed && known.problem.contains("not on the link"), "{known:?}");
            Ok(())
        })?;
        let shown = first.netd.cli(&["node", "list"])?;
        ensure!(shown.contains("not on the link"), "{shown}");
        Ok(())
    })
}
