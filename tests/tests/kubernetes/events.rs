//! What `kubectl describe node` shows of what does not work.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::{Families, Node, flannel},
    wait,
};

use super::backend;

/// A problem has to last for ten seconds, and is looked for every five.
const REPORTED_WITHIN: Duration = Duration::from_secs(40);

/// Waits for an event of a Node with a reason and a word.
fn wait_event(api: &ApiServer, node: &str, reason: &str, word: &str) -> Result<()> {
    wait::until(REPORTED_WITHIN, &format!("an event {reason} of {node} that says {word:?}"), || {
        // As people see it: the same command finds a Node's events.
        let shown = api.kubectl(&["describe", "node", node])?;
        let events = shown.split_once("\nEvents:").map_or("", |(_, events)| events);
        let is_it = |line: &str| line.contains(reason) && line.contains(word);
        ensure!(events.lines().any(is_it), "{events}");
        Ok(())
    })
    .map(drop)
}

#[test]
fn a_node_tells_what_does_not_work_and_that_it_works_again() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        api.add_node("n1", &["10.5.1.0/28"], &json!({}))?;
        let mut node = Node::launch_in_kubernetes(bed.host("n1")?, &plan, &api)?;
        node.wait_ready()?;
        let wrong = flannel::annotations("vxlan", "no JSON", "192.0.2.77");
        api.add_node("peer", &["10.5.77.0/24"], &wrong)?;
        // The last address is given out.
        let pods: Vec<Sandbox> = (0..13)
            .map(|number| Sandbox::attached(&node.host, &format!("pod{number}")))
            .collect::<Result<_>>()?;
        wait_event(&api, "n1", "NetdProblem", "peer")?;
        wait_event(&api, "n1", "NetdProblem", "network/default")?;
        api.kubectl(&["delete", "node", "peer"])?;
        pods[0].del(&node.host)?;
        wait_event(&api, "n1", "NetdRecovered", "overlay/leases")?;
        wait_event(&api, "n1", "NetdRecovered", "network/default")
    })
}
