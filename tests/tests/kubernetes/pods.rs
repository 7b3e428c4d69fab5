//! Endpoints follow their pods in the API: labels, named ports, and pods that are gone.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{self, Endpoint};
use serde_json::{Value, json};
use testbed::{
    ApiServer, Plan, Sandbox, case,
    cluster::{Families, Node},
    wait,
};

use super::{SOON, backend, launch};

/// A pod `web` in the API that is bound to the Node; its uid.
fn make_pod(api: &ApiServer, name: &str, node: &str) -> Result<String> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } },
        "spec": {
            "nodeName": node,
            "containers": [{
                "name": "web", "image": "web",
                "ports": [{ "name": "http", "containerPort": 8080 }],
            }],
        },
    });
    api.apply(&pod.to_string())?;
    let made = api.get("default", "pod", name)?;
    Ok(made["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

/// A sandbox that belongs to a pod, not attached yet.
fn sandbox_of(node: &Node, name: &str, uid: &str) -> Result<Sandbox> {
    let mut sandbox = Sandbox::bare(&node.host, name)?;
    sandbox.arguments =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};K8S_POD_UID={uid}");
    Ok(sandbox)
}

fn endpoint(node: &Node, sandbox: &Sandbox) -> Result<Endpoint> {
    let all = node.netd.endpoints()?;
    all.into_iter().find(|e| e.sandbox_id == sandbox.id).context("no such endpoint")
}

fn wait_labels(node: &Node, sandbox: &Sandbox, wanted: &[(&str, &str)]) -> Result<()> {
    let wanted: BTreeMap<_, _> =
        wanted.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    wait::until(SOON, &format!("labels {wanted:?}"), || {
        let found = endpoint(node, sandbox)?.labels;
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
    .map(drop)
}

fn delete(api: &ApiServer, pod: &str) -> Result<()> {
    api.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force"]).map(drop)
}

#[test]
fn labels_and_named_ports_follow_the_pod() -> Result<()> {
    case(|bed| {
        let mut api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let mut node = launch(bed, &api, &plan, 1)?;
        node.wait_ready()?;
        let uid = make_pod(&api, "web", "n1")?;
        let mut sandbox = sandbox_of(&node, "web", &uid)?;
        sandbox.add(&node.host)?;
        wait_labels(&node, &sandbox, &[("app", "web")])?;
        let ports = endpoint(&node, &sandbox)?.named_ports;
        let shown: Vec<_> = ports.iter().map(|p| (p.name.as_str(), p.port)).collect();
        ensure!(shown == [("http", 8080)], "{ports:?}");

        api.kubectl(&["label", "pod", "web", "tier=front", "app-"])?;
        wait_labels(&node, &sandbox, &[("tier", "front")])?;
        // What changes while netd is away, or the API is, is known when they are back.
        node.netd.kill9()?;
        api.kubectl(&["label", "pod", "web", "tier=back", "--overwrite"])?;
        node.netd.respawn()?;
        node.wait_ready()?;
        wait_labels(&node, &sandbox, &[("tier", "back")])?;
        api.kill()?;
        wait::until(SOON * 3, "netd says that it does not know pods", || {
            ensure!(!node.problem("pods")?.is_empty(), "no problem");
            Ok(())
        })?;
        // The runtime only knows the labels of the time when the sandbox was made.
        let labels = [("app".to_owned(), "web".to_owned())].into();
        let said = v1::Sandbox { id: sandbox.id.clone(), labels, ..v1::Sandbox::default() };
        node.netd.annotate(said)?;
        wait_labels(&node, &sandbox, &[("tier", "back")])?;
        api.run()?;
        api.kubectl(&["label", "pod", "web", "tier-"])?;
        wait::until(SOON * 3, "no labels", || {
            let found = endpoint(&node, &sandbox)?.labels;
            ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })?;
        // Another pod of that name, as a StatefulSet makes it, is not this endpoint's.
        delete(&api, "web")?;
        make_pod(&api, "web", "n1")?;
        wait::pause(Duration::from_secs(2));
        let found = endpoint(&node, &sandbox)?.labels;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })
}

/// The usual grace is five minutes.
#[test]
fn what_a_pod_that_is_gone_left_is_collected_at_once() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let mut node = launch(bed, &api, &plan, 1)?;
        node.wait_ready()?;
        let mut sandboxes = Vec::new();
        for name in ["gone", "there", "lives"] {
            let uid = make_pod(&api, name, "n1")?;
            let mut sandbox = sandbox_of(&node, name, &uid)?;
            sandbox.add(&node.host)?;
            wait_labels(&node, &sandbox, &[("app", "web")])?;
            sandboxes.push(sandbox);
        }
        // Two sandboxes vanish without a DEL; the third lives though its pod was deleted by force.
        sandboxes[..2].iter_mut().for_each(Sandbox::vanish);
        delete(&api, "gone")?;
        delete(&api, "lives")?;
        wait::until(SOON, "what the pod left is removed", || {
            let left = node.netd.endpoints()?;
            ensure!(!left.iter().any(|e| e.sandbox_id == sandboxes[0].id), "{left:?}");
            Ok(())
        })?;
        wait::pause(Duration::from_secs(3));
        for kept in &sandboxes[1..] {
            endpoint(&node, kept).with_context(|| format!("{} was collected", kept.id))?;
        }
        Ok(())
    })
}

/// An update of the image alone leaves the account of an earlier release.
#[test]
fn an_account_that_may_not_read_pods_is_said_and_hinders_nothing() -> Result<()> {
    case(|bed| {
        let api = ApiServer::start(bed)?;
        let role = api.kubectl(&["get", "clusterrole", "netd", "-o", "json"])?;
        let mut less: Value = serde_json::from_str(&role)?;
        let rules = less["rules"].as_array_mut().context("no rules")?;
        rules.retain(|rule| rule["resources"] != json!(["pods"]));
        api.apply(&less.to_string())?;
        let plan = Plan::new(Families::V4, backend("vxlan")).nodes(1);
        let mut node = launch(bed, &api, &plan, 1)?;
        node.wait_ready()?;
        wait::until(SOON, "the missing rule is named", || {
            let problem = node.problem("pods")?;
            ensure!(problem.contains("403") && problem.contains("netd.yaml"), "{problem}");
            Ok(())
        })?;
        let uid = make_pod(&api, "web", "n1")?;
        let mut sandbox = sandbox_of(&node, "web", &uid)?;
        sandbox.add(&node.host)?;
        let mut whole: Value = serde_json::from_str(&role)?;
        whole["metadata"]["resourceVersion"] = Value::Null;
        api.apply(&whole.to_string())?;
        wait::until(SOON * 3, "the labels are there", || {
            let found = endpoint(&node, &sandbox)?.labels;
            ensure!(found.contains_key("app") && node.problem("pods")?.is_empty(), "{found:?}");
            Ok(())
        })?;
        Ok(())
    })
}
