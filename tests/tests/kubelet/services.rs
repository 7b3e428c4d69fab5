//! Pods and Services, by kube-proxy.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Result, ensure};
use serde_json::Value;
use testbed::{
    Host, KubernetesCluster, case,
    kubernetes::{NODE_PORT, WebPod},
    paths, wait,
};

use super::PODS;

/// Enough questions that each of a few pods is asked, the asking one too.
const TIMES: usize = 60;

/// What else people ask of a Service, and of a pod.
const MORE: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: sticky }
spec:
  selector: { app: web }
  sessionAffinity: ClientIP
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: local }
spec:
  type: NodePort
  externalTrafficPolicy: Local
  selector: { app: local }
  ports: [{ port: 80, targetPort: 8080, nodePort: 30081 }]
---
apiVersion: v1
kind: Pod
metadata: { name: local, labels: { app: local } }
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  containers:
    - name: local
      image: localhost/test:1
      imagePullPolicy: Never
      # Its log says who asks.
      command: [sh, -c, "echo local > /www/index.html; exec httpd -f -v -p 8080 -h /www"]
      ports: [{ containerPort: 8080, hostPort: 30082 }]
      readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 }
"#;

fn services(driver: &str) -> Result<()> {
    case(|bed| {
        let cluster = KubernetesCluster::start(bed, 2)?;
        let manifest = KubernetesCluster::manifest()?;
        let driven = manifest.replace("driver = \"bridge\"", &format!("driver = \"{driver}\""));
        cluster.deploy(&driven)?;
        cluster.deploy_web(4)?;
        cluster.api.apply(MORE)?;
        let pods = cluster.web_pods(4, PODS)?;
        let local = cluster.wait_pods("app=local", 1, PODS)?;
        let nodes: BTreeSet<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
        ensure!(nodes.len() == 2, "all pods are on one node: {pods:?}");
        cluster.all_pods_reach_each_other(&pods)?;
        // From every pod to every pod, itself too, by the ClusterIP.
        for pod in &pods {
            let said = ask(&cluster, pod, &cluster.web_service()?)?;
            ensure!(said.len() == pods.len(), "{} was answered by {said:?} only", pod.name);
            let said = ask(&cluster, pod, &cluster.cluster_ip("sticky")?)?;
            ensure!(said.len() == 1, "{} was answered by {said:?}", pod.name);
        }
        let outside = bed.host("outside")?;
        for node in &cluster.nodes {
            let port = format!("{}:{NODE_PORT}", node.host.v4);
            ask(&cluster, &pods[0], &port)?;
            wget(&outside, &port)?;
        }
        seen_as_itself(&cluster, &outside, &local[0])
    })
}

/// The answers to many questions of a pod.
fn ask(cluster: &KubernetesCluster, pod: &WebPod, target: &str) -> Result<BTreeSet<String>> {
    let ask = format!("for i in $(seq {TIMES}); do wget -qO- http://{target}/ || exit 1; done");
    let said = cluster.api.kubectl(&["exec", &pod.name, "--", "sh", "-c", &ask])?;
    ensure!(said.lines().count() == TIMES, "{target}: {said}");
    Ok(said.lines().map(str::to_owned).collect())
}

fn wget(from: &Host, target: &str) -> Result<String> {
    let busybox: PathBuf = paths::fetched("busybox")?.join("bin/busybox");
    from.net.sh(&format!("timeout 5 {} wget -qO- http://{target}/", busybox.display()))
}

/// Who asks from outside keeps its address, by a NodePort with externalTrafficPolicy Local and by a
/// host port; the node without the pod answers neither.
fn seen_as_itself(cluster: &KubernetesCluster, outside: &Host, pod: &Value) -> Result<()> {
    let [with, without] = [&cluster.nodes[0].host, &cluster.nodes[1].host];
    ensure!(pod["spec"]["nodeName"] == with.name.as_str());
    for port in [30081, 30082] {
        wget(outside, &format!("{}:{port}", with.v4))?;
        ensure!(wget(outside, &format!("{}:{port}", without.v4)).is_err(), "{port}");
    }
    wait::until(PODS, "the pod's log has the address that asked", || {
        let log = cluster.api.kubectl(&["logs", "local"])?;
        let own = log.lines().filter(|line| line.contains(&outside.v4.to_string())).count();
        ensure!(own >= 2, "{} is not in {log}", outside.v4);
        Ok(())
    })
    .map(drop)
}

#[test]
fn of_the_bridge_driver() -> Result<()> {
    services("bridge")
}

#[test]
fn of_the_routed_driver() -> Result<()> {
    services("routed")
}

/// A Service of both families.
const BOTH: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: both }
spec:
  ipFamilyPolicy: RequireDualStack
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8080 }]
"#;

fn texts(list: &Value) -> Vec<String> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|item| item.as_str().or(item["ip"].as_str())).map(url_host).collect()
}

fn url_host(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[test]
fn of_both_families() -> Result<()> {
    case(|bed| {
        let cluster = KubernetesCluster::start_dual(bed, 2)?;
        let both = r#""EnableIPv6": true, "IPv6Network": "fd00:10:244::/56", "Backend""#;
        cluster.deploy(&KubernetesCluster::manifest()?.replace("\"Backend\"", both))?;
        cluster.deploy_web(4)?;
        cluster.api.apply(BOTH)?;
        let pods = cluster.web_pods(4, PODS)?;
        let service = texts(&cluster.api.get("default", "service", "both")?["spec"]["clusterIPs"]);
        ensure!(service.len() == 2, "{service:?}");
        for to in &pods {
            let ips = texts(&cluster.api.get("default", "pod", &to.name)?["status"]["podIPs"]);
            ensure!(ips.len() == 2, "{} has {ips:?}", to.name);
            for (from, ip) in pods.iter().flat_map(|from| ips.iter().map(move |ip| (from, ip))) {
                let said = cluster.ask_from(from, &format!("{ip}:8080"))?;
                ensure!(said == to.name, "{ip} is {said}");
            }
        }
        for (pod, ip) in pods.iter().flat_map(|pod| service.iter().map(move |ip| (pod, ip))) {
            let said = ask(&cluster, pod, ip)?;
            ensure!(said.len() == pods.len(), "{} at {ip}: {said:?}", pod.name);
        }
        Ok(())
    })
}
