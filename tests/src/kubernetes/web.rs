//! A web server as people deploy it: a Deployment whose pods say their name, and a Service.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::KubernetesCluster;

/// The Service's port on every node.
pub const NODE_PORT: u16 = 30080;

/// A pod of it.
#[derive(Debug, Clone)]
pub struct WebPod {
    /// Its name, which it says to who asks.
    pub name: String,
    /// Its address.
    pub ip: String,
    /// Its node.
    pub node: String,
}

impl KubernetesCluster {
    /// Deploys so many pods, labelled app=web, and their Service.
    pub fn deploy_web(&self, count: usize) -> Result<()> {
        self.api.apply(&text(count)).map(drop)
    }

    /// Changes how many.
    pub fn scale_web(&self, count: usize) -> Result<()> {
        let replicas = format!("--replicas={count}");
        self.api.kubectl(&["scale", "deployment", "web", &replicas]).map(drop)
    }

    /// Waits until so many run, and no others.
    pub fn web_pods(&self, count: usize, limit: Duration) -> Result<Vec<WebPod>> {
        let pods = self.wait_pods("app=web", count, limit)?;
        pods.iter().map(web_pod).collect()
    }

    /// The Service's ClusterIP.
    pub fn web_service(&self) -> Result<String> {
        self.cluster_ip("web")
    }

    /// The ClusterIP of a Service.
    pub fn cluster_ip(&self, service: &str) -> Result<String> {
        let service = self.api.get("default", "service", service)?;
        Ok(service["spec"]["clusterIP"].as_str().context("no ClusterIP")?.to_owned())
    }

    /// What a pod gets when it asks an address.
    pub fn ask_from(&self, pod: &WebPod, target: &str) -> Result<String> {
        let url = format!("http://{target}/");
        let said = self.api.kubectl(&["exec", &pod.name, "--", "wget", "-qO-", &url])?;
        Ok(said.trim().to_owned())
    }

    /// Every pod reaches every other by its address, itself too. How many ways there are.
    pub fn all_pods_reach_each_other(&self, pods: &[WebPod]) -> Result<usize> {
        for (from, to) in pods.iter().flat_map(|from| pods.iter().map(move |to| (from, to))) {
            let said = self.ask_from(from, &format!("{}:8080", to.ip))?;
            ensure!(said == to.name, "{} asked {} and got {said:?}", from.name, to.name);
        }
        Ok(pods.len() * pods.len())
    }
}

fn web_pod(pod: &Value) -> Result<WebPod> {
    let text =
        |value: &Value| Ok::<_, anyhow::Error>(value.as_str().context("no text")?.to_owned());
    Ok(WebPod {
        name: text(&pod["metadata"]["name"])?,
        ip: text(&pod["status"]["podIP"])?,
        node: text(&pod["spec"]["nodeName"])?,
    })
}

fn text(count: usize) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: {count}
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: web
          image: localhost/test:1
          imagePullPolicy: Never
          command: [sh, -c, "hostname > /www/index.html; exec httpd -f -p 8080 -h /www"]
          readinessProbe: {{ httpGet: {{ port: 8080, path: / }}, periodSeconds: 1 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: web }}
spec:
  type: NodePort
  selector: {{ app: web }}
  ports: [{{ port: 80, targetPort: 8080, nodePort: {NODE_PORT} }}]
"#
    )
}
