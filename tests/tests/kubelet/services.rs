//! Pods and Services.

use anyhow::{Result, ensure};
use testbed::{
    KubernetesCluster, case,
    kubernetes::{NODE_PORT, WebPod},
    paths,
};

use super::PODS;

/// Enough questions that each of a few pods is asked, itself too.
const TIMES: usize = 20;

#[test]
fn pods_reach_each_other_and_services() -> Result<()> {
    case(|bed| {
        let cluster = KubernetesCluster::start(bed, 2)?;
        cluster.deploy_netd()?;
        cluster.deploy_web(4)?;
        let pods = cluster.web_pods(4, PODS)?;
        let nodes: std::collections::BTreeSet<&str> =
            pods.iter().map(|pod| pod.node.as_str()).collect();
        ensure!(nodes.len() == 2, "all pods are on one node: {pods:?}");
        cluster.all_pods_reach_each_other(&pods)?;
        let service = cluster.web_service()?;
        for pod in &pods {
            asks_all(&cluster, pod, &service)?;
        }
        let busybox = paths::fetched("busybox")?.join("bin/busybox");
        for node in &cluster.nodes {
            asks_all(&cluster, &pods[0], &format!("{}:{NODE_PORT}", node.host.v4))?;
            // From outside of the cluster.
            let wget =
                format!("{} wget -qO- http://{}:{NODE_PORT}/", busybox.display(), node.host.v4);
            bed.underlay().sh(&wget)?;
        }
        Ok(())
    })
}

/// A pod gets an answer each time.
fn asks_all(cluster: &KubernetesCluster, pod: &WebPod, target: &str) -> Result<()> {
    let ask = format!("for i in $(seq {TIMES}); do wget -qO- http://{target}/ || exit 1; done");
    let said = cluster.api.kubectl(&["exec", &pod.name, "--", "sh", "-c", &ask])?;
    ensure!(said.lines().count() == TIMES, "{target}: {said}");
    Ok(())
}
