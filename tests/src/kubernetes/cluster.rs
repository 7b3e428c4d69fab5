//! A whole Kubernetes: API server, controllers, scheduler, and nodes with kubelet, containerd and
//! kube-proxy; netd comes as its manifest says.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{ApiServer, KubeNode, access, program};
use crate::{bed::Bed, image, paths, service::Service, wait};

/// kube-controller-manager's first podCIDR comes some 14 s after the API server's start.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// Dropped in this order: nodes, controllers, API server.
#[derive(Debug)]
pub struct KubernetesCluster {
    /// Its nodes, n1 and so on.
    pub nodes: Vec<KubeNode>,
    _programs: Vec<Service>,
    /// Its API server, on a host that is no node.
    pub api: ApiServer,
}

impl KubernetesCluster {
    /// Starts it; its nodes have no network yet.
    pub fn start(bed: &Bed, nodes: usize) -> Result<Self> {
        Self::start_with(bed, nodes, false)
    }

    /// The same with both families.
    pub fn start_dual(bed: &Bed, nodes: usize) -> Result<Self> {
        Self::start_with(bed, nodes, true)
    }

    fn start_with(bed: &Bed, nodes: usize, dual: bool) -> Result<Self> {
        let api = ApiServer::launch(bed, true, dual)?;
        let programs = vec![controllers(&api)?, scheduler(&api)?];
        let names = access::KUBELETS.get(..nodes).context("so many nodes have no accounts")?;
        let nodes =
            names.iter().map(|name| KubeNode::start(bed, &api, name)).collect::<Result<_>>()?;
        let cluster = Self { nodes, _programs: programs, api };
        wait::until(READY_WITHIN, "the Nodes have podCIDRs", || {
            for node in &cluster.nodes {
                let found = cluster.api.node(&node.host.name)?;
                ensure!(found["spec"]["podCIDR"].is_string(), "{} has none", node.host.name);
            }
            Ok(())
        })?;
        Ok(cluster)
    }

    /// netd by its manifest, with the image of the programs as built; waits until it is ready and
    /// all Nodes are.
    pub fn deploy_netd(&self) -> Result<()> {
        self.deploy(&Self::manifest()?)
    }

    /// The same by another manifest.
    pub fn deploy(&self, manifest: &str) -> Result<()> {
        self.deploy_to("netd", manifest)
    }

    /// The same of objects in another namespace.
    pub fn deploy_to(&self, namespace: &str, manifest: &str) -> Result<()> {
        let image = image::netd()?;
        self.nodes.iter().try_for_each(|node| node.containerd.import(&image))?;
        self.api.apply(manifest)?;
        self.wait_ready_in(namespace)
    }

    /// deploy/kubernetes/netd.yaml as it is; the image has its name.
    pub fn manifest() -> Result<String> {
        Ok(fs::read_to_string(paths::root().join("deploy/kubernetes/netd.yaml"))?)
    }

    /// Until all Nodes are ready, and netd says so of each.
    pub fn wait_ready(&self) -> Result<()> {
        self.wait_ready_in("netd")
    }

    fn wait_ready_in(&self, namespace: &str) -> Result<()> {
        let Self { nodes, api, .. } = self;
        wait::until(READY_WITHIN, "all Nodes are ready", || {
            for node in nodes {
                let found = api.node(&node.host.name)?;
                let conditions = found["status"]["conditions"].as_array().cloned();
                let is = |kind: &str, status: &str| {
                    let all = conditions.iter().flatten();
                    all.into_iter().any(|c| c["type"] == kind && c["status"] == status)
                };
                ensure!(is("Ready", "True") && is("NetworkUnavailable", "False"), "{conditions:?}");
            }
            let set = api.get(namespace, "daemonset", "netd")?;
            let ready = set["status"]["numberReady"].as_u64();
            ensure!(ready == Some(nodes.len() as u64), "netd: {}", set["status"]);
            let (wanted, seen) =
                (&set["metadata"]["generation"], &set["status"]["observedGeneration"]);
            let updated = set["status"]["updatedNumberScheduled"].as_u64();
            ensure!(wanted == seen && updated == ready, "netd: {}", set["status"]);
            Ok(())
        })?;
        Ok(())
    }

    /// `Kubernetes v1.20.2`.
    pub fn version(&self) -> Result<String> {
        program::version()
    }

    /// The pods of a namespace with a label, by name.
    pub fn pods(&self, namespace: &str, label: &str) -> Result<Vec<Value>> {
        let text =
            self.api.kubectl(&["-n", namespace, "get", "pods", "-l", label, "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until so many pods with a label run and are ready, and there are no others.
    pub fn wait_pods(&self, label: &str, count: usize, limit: Duration) -> Result<Vec<Value>> {
        let (pods, _) = wait::until(limit, &format!("{count} pods {label} run"), || {
            let pods = self.pods("default", label)?;
            let ready = pods.iter().filter(|pod| is_ready(pod)).count();
            ensure!(pods.len() == count && ready == count, "{ready} of {} are ready", pods.len());
            Ok(pods)
        })?;
        Ok(pods)
    }
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn controllers(api: &ApiServer) -> Result<Service> {
    let name = "kube-controller-manager";
    let file = |name: &str| access::file(&api.host, name).display().to_string();
    let mut command = api.host.net.command(program::path(name)?);
    command.arg(format!("--kubeconfig={}", file("kube-controller-manager.kubeconfig")));
    command.args(["--leader-elect=false", "--bind-address=127.0.0.1", "--allocate-node-cidrs"]);
    command.arg(program::cluster_cidr(api.dual));
    if api.dual {
        command.args(program::dual_stack()?);
        command.arg("--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112");
    }
    command.arg(format!("--service-account-private-key-file={}", file("accounts.key")));
    command.arg(format!("--root-ca-file={}", file("ca.crt")));
    command.arg("--use-service-account-credentials");
    Service::start(name, command, &api.host.directory().join("controllers.log"))
}

fn scheduler(api: &ApiServer) -> Result<Service> {
    let name = "kube-scheduler";
    let config = access::file(&api.host, "kube-scheduler.kubeconfig");
    let mut command = api.host.net.command(program::path(name)?);
    command.arg(format!("--kubeconfig={}", config.display()));
    command.args(["--leader-elect=false", "--bind-address=127.0.0.1"]);
    Service::start(name, command, &api.host.directory().join("scheduler.log"))
}
