//! The API server away, restarted, restored from an older copy; a token that is replaced.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::{Families, Node},
    net::probe,
    scale, wait,
};

use super::{SOON, all_reach_each_other, backend, cluster, launch, pods};

/// Waits until a node has its way to a subnet.
fn wait_known(node: &Node, subnet: &str) -> Result<()> {
    wait::until(SOON * 2, "the new node is known", || {
        let known = node.knows(subnet)?;
        ensure!(known.as_ref().is_some_and(|known| known.programmed), "{known:?}");
        Ok(())
    })
    .map(drop)
}

/// A change that happened while the API server was away is seen when it is back, after
/// `NETD_API_AWAY` seconds; pods come and go meanwhile.
#[test]
fn what_changed_meanwhile_is_seen_when_the_api_server_is_back() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(2);
        let mut nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        for away in [0, 1, scale("NETD_API_AWAY", 2)?] {
            api.kill()?;
            wait::pause(Duration::from_secs(away));
            all_reach_each_other(&pods)?;
            let meanwhile = Sandbox::attached(&nodes[0].host, "meanwhile")?;
            probe::ping(&meanwhile.net, pods[1].v4()?)?;
            meanwhile.del(&nodes[0].host)?;
            api.run()?;
        }
        let mut third = launch(bed, &api, &plan, 3)?;
        third.wait_ready()?;
        nodes.push(third);
        wait_known(&nodes[0], "10.5.3.0/24")
    })
}

/// Numbers of changes go back then, and a watch from a number that is yet to come is silent.
#[test]
fn an_api_server_that_was_restored_from_an_older_copy_is_listed_again() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(2);
        let nodes = cluster(bed, &api, &plan)?;
        let pods = pods(&nodes)?;
        let copy = bed.directory().join("copy");
        api.etcd.snapshot(&copy)?;
        // Much happens after the copy was made, so that the numbers are far ahead of it.
        for beat in 0..30 {
            let label =
                serde_json::json!({ "metadata": { "labels": { "beat": beat.to_string() } } });
            api.patch_node("n1", &label)?;
        }
        api.kill()?;
        api.etcd.restore(&copy)?;
        api.run()?;
        all_reach_each_other(&pods)?;
        let mut third = launch(bed, &api, &plan, 3)?;
        third.wait_ready()?;
        // What came after the restore is seen.
        wait_known(&nodes[0], "10.5.3.0/24")
    })
}

/// A token that is no longer accepted is named, and the next one in the file is taken.
#[test]
fn a_token_is_read_again_when_it_was_replaced() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let mut nodes = cluster(bed, &api, &Plan::new(Families::V4, backend("vxlan")).nodes(1))?;
        std::fs::write(api.kubeconfig().with_file_name("netd.token"), "stale")?;
        nodes[0].netd.restart()?;
        let says = |text: &str, within| {
            wait::until(within, "the API's state is told", || {
                let problem = nodes[0].problem("kubernetes")?;
                let right =
                    if text.is_empty() { problem.is_empty() } else { problem.contains(text) };
                ensure!(right, "{problem}");
                Ok(())
            })
            .map(drop)
        };
        says("401", SOON)?;
        api.renew_token()?;
        // kube's client reads a token's file once a minute.
        says("", Duration::from_secs(120))
    })
}
