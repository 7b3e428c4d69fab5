//! A real Kubernetes API server on an etcd of its own, on a host of the bed. Alone, its Nodes are
//! objects that the tests make; [`KubernetesCluster`] has kubelets and all.

mod access;
pub(crate) mod cgroups;
mod cluster;
mod kube_node;
mod mounts;
mod program;
mod web;

pub use cluster::KubernetesCluster;
pub use kube_node::KubeNode;
pub use program::render;
pub use web::{NODE_PORT, WebPod};

use std::{io::Write as _, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::{
    bed::Bed,
    etcd::{EtcdCluster, EtcdSetup, Place},
    host::Host,
    paths,
    service::Service,
    wait,
};

/// The API server's start, beside other tests.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// The option of kubectl that lets a request last.
const UNHURRIED: &str = "--request-timeout=0";

/// Before the names of flannel's annotations.
const FLANNEL: &str = "flannel.alpha.coreos.com";

/// See the module.
#[derive(Debug)]
pub struct ApiServer {
    /// Its machine.
    pub host: Host,
    /// Its etcd.
    pub etcd: EtcdCluster,
    service: Option<Service>,
    /// Whether others of Kubernetes' programs work with it.
    whole: bool,
    /// Whether Services have both families.
    dual: bool,
}

impl ApiServer {
    /// Starts it alone, and makes netd's account of what deploy/kubernetes says.
    pub fn start(bed: &Bed) -> Result<Self> {
        let api = Self::launch(bed, false, false)?;
        let rbac = paths::root().join("deploy/kubernetes/rbac.yaml");
        api.kubectl(&["apply", "-f", &rbac.display().to_string()])?;
        api.renew_token()?;
        Ok(api)
    }

    fn launch(bed: &Bed, whole: bool, dual: bool) -> Result<Self> {
        let host = bed.host("api")?;
        let place = Place { address: host.v4.into(), net: Some(host.net.path().to_owned()) };
        let etcd =
            EtcdCluster::start_with(&host.directory().join("etcd"), EtcdSetup::on(vec![place]))?;
        access::make(&host)?;
        let mut api = Self { host, etcd, service: None, whole, dual };
        api.run()?;
        Ok(api)
    }

    /// Starts it again after [`Self::kill`].
    pub fn run(&mut self) -> Result<()> {
        let file = |name: &str| access::file(&self.host, name).display().to_string();
        let mut command = self.host.net.command(program::path("kube-apiserver")?);
        command.arg(format!("--etcd-servers={}", self.etcd.endpoint(0)));
        command.arg(format!("--advertise-address={}", self.host.v4));
        command.arg(format!("--tls-cert-file={}", file("server.crt")));
        command.arg(format!("--tls-private-key-file={}", file("server.key")));
        command.arg(format!("--cert-dir={}", file("")));
        command.arg(format!("--token-auth-file={}", file("tokens.csv")));
        command.arg(format!("--service-account-key-file={}", file("accounts.pub")));
        command.arg(format!("--service-account-signing-key-file={}", file("accounts.key")));
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        let more = if self.dual { ",fd00:10:96::/112" } else { "" };
        command.arg(format!("--service-cluster-ip-range=10.96.0.0/16{more}"));
        command.args(program::dual_stack()?);
        if self.whole {
            command.args(["--authorization-mode=Node,RBAC", "--allow-privileged"]);
            command.arg("--enable-admission-plugins=NodeRestriction");
            command.arg("--kubelet-preferred-address-types=InternalIP");
        } else {
            // The controller-manager makes what this one asks for; there is none.
            command
                .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"]);
        }
        let log = self.host.directory().join("apiserver.log");
        self.service = Some(Service::start("kube-apiserver", command, &log)?);
        wait::until(READY_WITHIN, "the API server is ready", || {
            self.service.as_mut().context("not started")?.check_alive()?;
            self.kubectl(&["get", "--raw", "/readyz"]).map(drop)
        })?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.service.take().map_or(Ok(()), |mut service| service.kill9())
    }

    /// Gives netd's account another token, in the file that its kubeconfig names.
    pub fn renew_token(&self) -> Result<()> {
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let path = "/api/v1/namespaces/netd/serviceaccounts/netd/token";
        let answer = self.kubectl_with(&["create", "--raw", path, "-f", "-"], &request)?;
        let answer: Value = serde_json::from_str(&answer)?;
        let token = answer["status"]["token"].as_str().context("no token")?;
        access::write(&self.host, "netd.token", token)
    }

    /// How netd reaches it.
    pub fn kubeconfig(&self) -> PathBuf {
        access::file(&self.host, "netd.kubeconfig")
    }

    /// `kubectl ARGUMENTS`, as an administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with(arguments, &Value::Null)
    }

    /// The same of a command that lasts.
    pub fn kubectl_unhurried(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl(&[&[UNHURRIED], arguments].concat())
    }

    /// `kubectl apply` of a text.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        self.kubectl_fed(&["apply", "-f", "-"], yaml)
    }

    fn kubectl_with(&self, arguments: &[&str], input: &Value) -> Result<String> {
        let input = if input.is_null() { String::new() } else { input.to_string() };
        self.kubectl_fed(arguments, &input)
    }

    fn kubectl_fed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let config = access::file(&self.host, "admin.kubeconfig");
        let mut command = self.host.net.command(program::path("kubectl")?);
        command.arg(format!("--kubeconfig={}", config.display()));
        if !arguments.contains(&UNHURRIED) {
            command.arg("--request-timeout=5s");
        }
        // Where it keeps what it learns of the API.
        command.args(arguments).env("HOME", self.host.directory());
        let piped = (Stdio::piped(), Stdio::piped(), Stdio::piped());
        let mut child = command.stdin(piped.0).stdout(piped.1).stderr(piped.2).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        stdin.write_all(input.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let messages = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {messages}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Makes a Node with these podCIDRs, as kubelet and the controller-manager do.
    pub fn add_node(&self, name: &str, pod_cidrs: &[&str], annotations: &Value) -> Result<()> {
        let mut spec = json!({});
        if let Some(first) = pod_cidrs.first() {
            spec = json!({ "podCIDR": first, "podCIDRs": pod_cidrs });
        }
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": { "name": name, "annotations": annotations },
            "spec": spec,
        });
        self.kubectl_with(&["create", "-f", "-"], &node).map(drop)
    }

    /// Changes a Node by a merge patch.
    pub fn patch_node(&self, name: &str, patch: &Value) -> Result<()> {
        self.kubectl(&["patch", "node", name, "--type=merge", "-p", &patch.to_string()]).map(drop)
    }

    /// A Node as the API has it.
    pub fn node(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.kubectl(&["get", "node", name, "-o", "json"])?)?)
    }

    /// An object of a namespace.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["-n", namespace, "get", kind, name, "-o", "json"])?;
        Ok(serde_json::from_str(&text)?)
    }

    /// flannel's annotations of a Node, without their prefix.
    pub fn annotations(&self, name: &str) -> Result<serde_json::Map<String, Value>> {
        let node = self.node(name)?;
        let all = node["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
        let ours = all.into_iter().filter_map(|(key, value)| {
            let short = key.strip_prefix(FLANNEL)?.strip_prefix('/')?.to_owned();
            Some((short, value))
        });
        Ok(ours.collect())
    }
}
