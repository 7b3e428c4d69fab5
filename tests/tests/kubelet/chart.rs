//! deploy/kubernetes/chart: by itself it is netd.yaml, and its values do what they say.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use testbed::{KubernetesCluster, case, kubernetes::render, paths};

use super::PODS;

#[test]
fn it_renders_what_the_manifest_says() -> Result<()> {
    let deploy = paths::root().join("deploy/kubernetes");
    let mut manifest = render(&[&deploy.join("netd.yaml")])?;
    let namespace = manifest.remove(0);
    ensure!(namespace["kind"] == "Namespace", "{namespace}");
    let chart = render(&[&deploy.join("chart"), "netd".as_ref()])?;
    ensure!(chart.len() == manifest.len(), "{} objects, {}", chart.len(), manifest.len());
    for (rendered, written) in chart.iter().zip(&manifest) {
        ensure!(rendered == written, "{rendered:#}\nis not\n{written:#}");
    }
    Ok(())
}

/// netd as a service of the machine has the same account, and a token.
#[test]
fn the_account_outside_of_a_pod_is_the_same() -> Result<()> {
    let deploy = paths::root().join("deploy/kubernetes");
    let manifest = render(&[&deploy.join("netd.yaml")])?;
    let account = render(&[&deploy.join("rbac.yaml")])?;
    for object in account.iter().filter(|object| {
        let kind = object["kind"].as_str().unwrap_or_default();
        kind.contains("Role") || kind == "ServiceAccount"
    }) {
        ensure!(manifest.contains(object), "netd.yaml has not {object:#}");
    }
    ensure!(account.iter().any(|object| object["kind"] == "ClusterRole"));
    Ok(())
}

/// Values that change all that can be changed: the backend udp needs netd-tunnel's container.
#[test]
fn its_values_do_what_they_say() -> Result<()> {
    case(|bed| {
        let values = json!({
            "netConf": json!({"Network": "10.244.0.0/16", "Backend": {"Type": "udp"}}).to_string(),
            "netdToml": "[[network]]\nname = \"default\"\ndriver = \"routed\"\n",
            "tunnel": true,
            "apiServer": {"host": "192.0.2.10", "port": 6443},
            "env": {"NETD_LOG": "debug"},
            "resources": {"requests": {"cpu": "10m"}},
            "cniConfName": "05-netd.conflist",
        });
        let path = bed.directory().join("values.yaml");
        std::fs::write(&path, values.to_string())?;
        let chart = paths::root().join("deploy/kubernetes/chart");
        let rendered = render(&[&chart, "kube-system".as_ref(), &path])?;
        let set = rendered.iter().find(|object| object["kind"] == "DaemonSet").context("no set")?;
        let resources = &set["spec"]["template"]["spec"]["containers"][0]["resources"];
        ensure!(resources["requests"] == json!({"cpu": "10m", "memory": "64Mi"}), "{resources}");
        let cluster = KubernetesCluster::start(bed, 2)?;
        ensure!(cluster.api.host.v4.to_string() == "192.0.2.10");
        let list = json!({"apiVersion": "v1", "kind": "List", "items": rendered});
        cluster.deploy_to("kube-system", &list.to_string())?;
        cluster.deploy_web(2)?;
        let pods = cluster.web_pods(2, PODS)?;
        cluster.all_pods_reach_each_other(&pods)?;
        // flannel's udp has an empty type.
        let said = cluster.api.annotations("n1")?;
        ensure!(said["backend-type"] == "", "{said:?}");
        Ok(())
    })
}
