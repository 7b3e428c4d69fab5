//! What netd writes of its Node: flannel's annotations, letter by letter, and the condition.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::{
    ApiServer, Plan, case,
    cluster::{Families, Node, flannel},
    wait,
};

use super::{SOON, backend, cluster, condition};

/// Waits until Node n1 has these annotations of flannel's and no others.
fn wait_annotated(api: &ApiServer, expected: &Value) -> Result<()> {
    wait::until(SOON, "the annotations are there", || {
        let found = Value::Object(api.annotations("n1")?);
        ensure!(found == *expected, "{found}, not {expected}");
        Ok(())
    })
    .map(drop)
}

#[test]
fn annotations_are_flannels_letter_by_letter() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::Dual, backend("vxlan")).nodes(1);
        let nodes = cluster(bed, &api, &plan)?;
        let host = &nodes[0].host;
        let data = |mac: String| format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}");
        let expected = json!({
            "kube-subnet-manager": "true",
            "backend-type": "vxlan",
            "backend-data": data(flannel::mac_of(host)?),
            "backend-v6-data": data(flannel::mac_of_device(host, "flannel-v6.1")?),
            "public-ip": host.v4.to_string(),
            "public-ipv6": host.v6.to_string(),
        });
        wait_annotated(&api, &expected)?;
        wait::until(SOON, "the condition is there", || {
            ensure!(condition(&api, "n1")?.0 == "False", "no condition");
            Ok(())
        })?;
        // Nothing is written again without need.
        let before = api.node("n1")?["metadata"]["resourceVersion"].clone();
        wait::pause(std::time::Duration::from_secs(3));
        let after = api.node("n1")?["metadata"]["resourceVersion"].clone();
        ensure!(before == after, "written again: {before}, {after}");
        let lines = std::fs::read_to_string(nodes[0].subnet_file())?;
        ensure!(lines.contains("FLANNEL_SUBNET=10.5.1.1/24"), "{lines}");
        Ok(())
    })
}

#[test]
fn annotations_of_host_gw_have_no_data() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("host-gw")).nodes(1);
        let nodes = cluster(bed, &api, &plan)?;
        let expected = json!({
            "kube-subnet-manager": "true",
            "backend-type": "host-gw",
            "backend-data": "null",
            "public-ip": nodes[0].host.v4.to_string(),
        });
        wait_annotated(&api, &expected)
    })
}

/// The operator's word about an address is announced in place of the node's own; one that can't
/// be an address is named.
#[test]
fn overwrites_of_addresses_are_honoured_or_refused_by_name() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("host-gw")).nodes(1);
        let nodes = cluster(bed, &api, &plan)?;
        let says = |ip: &str| {
            wait::until(SOON, "the address is announced", || {
                let found = api.annotations("n1")?;
                ensure!(found["public-ip"] == ip, "{found:?}");
                Ok(())
            })
            .map(drop)
        };
        let own = nodes[0].host.v4.to_string();
        says(&own)?;
        let over = |value: Value| {
            let key = "flannel.alpha.coreos.com/public-ip-overwrite";
            api.patch_node("n1", &json!({ "metadata": { "annotations": { key: value } } }))
        };
        over(json!("198.51.100.77"))?;
        says("198.51.100.77")?;
        // What was announced stays.
        over(json!("nowhere"))?;
        wait::until(SOON, "the wrong one is named", || {
            let problem = nodes[0].problem("overlay/lease")?;
            ensure!(
                problem.contains("public-ip-overwrite") && problem.contains("nowhere"),
                "{problem}"
            );
            Ok(())
        })?;
        says("198.51.100.77")?;
        ensure!(nodes[0].netd.status()?.ready, "not ready for a typo");
        over(Value::Null)?;
        says(&own)?;
        wait::until(SOON, "all is well again", || {
            let problem = nodes[0].problem("overlay/lease")?;
            ensure!(problem.is_empty(), "{problem}");
            Ok(())
        })?;
        Ok(())
    })
}

/// Pods are sent to a node only while it has a network. A restart is no outage.
#[test]
fn the_condition_says_whether_the_network_is_there() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("host-gw")).set("Network", json!("10.5.0.0"));
        api.add_node("n1", &["10.5.1.0/24"], &json!({}))?;
        let mut node = Node::launch_in_kubernetes(bed.host("n1")?, &plan, &api)?;
        let is = |status: &str, reason: &str, message: &str, within| {
            wait::until(within, "the condition is right", || {
                let found = condition(&api, "n1")?;
                ensure!(
                    found.0 == status && found.1 == reason && found.2.contains(message),
                    "{found:?}"
                );
                Ok(())
            })
            .map(drop)
        };
        is("True", "NetdIsNotReady", "10.5.0.0", SOON * 5)?;
        let right = Plan::new(Families::V4, backend("host-gw")).config.to_string();
        std::fs::write(node.host.directory().join("net-conf.json"), right)?;
        is("False", "NetdIsReady", "", SOON * 2)?;
        node.netd.restart()?;
        is("False", "NetdIsReady", "", SOON)
    })
}
