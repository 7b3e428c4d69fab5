//! The Kubernetes API as the cluster's truth: a real API server, netds on hosts of the bed, and
//! Nodes that the tests make.

mod api_faults;
mod events;
mod large;
mod leases_in_etcd;
mod life;
mod migration;
mod mixed;
mod nftables_proxy;
mod pods;
mod words;

use std::{thread, time::Duration};

use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use testbed::{ApiServer, Plan, Sandbox, bed::Bed, cluster::Node, net::probe, wait};

/// What a change of a Node may take until it is in force everywhere.
const SOON: Duration = Duration::from_secs(10);

fn backend(kind: &str) -> Value {
    json!({ "Type": kind })
}

/// A Node `nNUMBER` in the API with the usual podCIDRs, and a netd on a host of that name that
/// is not waited for.
fn launch(bed: &Bed, api: &ApiServer, plan: &Plan, number: usize) -> Result<Node> {
    let name = format!("n{number}");
    let host = bed.host(&name)?;
    let (v4, v6) = (format!("10.5.{number}.0/24"), format!("fd00:5:0:{number}::/64"));
    let families = plan.families;
    let all = [(families.v4(), v4.as_str()), (families.v6(), v6.as_str())];
    let given: Vec<&str> = all.into_iter().filter(|(has, _)| *has).map(|(_, net)| net).collect();
    api.add_node(&name, &given, &json!({}))?;
    Node::launch_in_kubernetes(host, plan, api)
}

/// So many of them, once they reach each other.
fn cluster(bed: &Bed, api: &ApiServer, plan: &Plan) -> Result<Vec<Node>> {
    let mut nodes: Vec<Node> =
        (1..=plan.nodes).map(|number| launch(bed, api, plan, number)).collect::<Result<_>>()?;
    nodes.iter_mut().try_for_each(Node::wait_ready)?;
    wait::until(SOON, "all nodes know each other", || {
        nodes.iter().try_for_each(|node| {
            let listed = node.listed()?;
            let reached = listed.nodes.iter().filter(|n| !n.local && n.programmed).count();
            ensure!(reached + 1 == plan.nodes, "{}: {listed:?}", node.host.name);
            Ok(())
        })
    })?;
    Ok(nodes)
}

/// One pod on each node.
fn pods(nodes: &[Node]) -> Result<Vec<Sandbox>> {
    thread::scope(|scope| {
        let attach = |node: &'_ Node| Sandbox::attached(&node.host, "pod");
        let threads: Vec<_> = nodes.iter().map(|node| scope.spawn(move || attach(node))).collect();
        threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("panicked"))?).collect()
    })
}

/// Every pod reaches every other, over all its addresses, and is seen as itself.
fn all_reach_each_other(pods: &[Sandbox]) -> Result<()> {
    for from in pods {
        for to in pods.iter().filter(|to| to.ips != from.ips) {
            to.ips.iter().try_for_each(|ip| probe::ping(&from.net, *ip))?;
        }
    }
    Ok(())
}

/// Status, reason and message of a Node's condition NetworkUnavailable.
fn condition(api: &ApiServer, node: &str) -> Result<(String, String, String)> {
    let node = api.node(node)?;
    let all = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|c| c["type"] == "NetworkUnavailable");
    let text = |key: &str| found.map_or("", |c| c[key].as_str().unwrap_or_default()).to_owned();
    Ok((text("status"), text("reason"), text("message")))
}
