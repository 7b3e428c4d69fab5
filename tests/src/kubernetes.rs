//! A real Kubernetes API server on an etcd of its own, on a host of the bed. Nodes are objects
//! that the tests make: no kubelet runs.

mod access;

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

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
}

impl ApiServer {
    /// Starts it, and makes netd's account of what deploy/kubernetes says.
    pub fn start(bed: &Bed) -> Result<Self> {
        let host = bed.host("api")?;
        let place = Place { address: host.v4.into(), net: Some(host.net.path().to_owned()) };
        let etcd =
            EtcdCluster::start_with(&host.directory().join("etcd"), EtcdSetup::on(vec![place]))?;
        access::make(&host)?;
        let mut api = Self { host, etcd, service: None };
        api.run()?;
        let rbac = paths::root().join("deploy/kubernetes/rbac.yaml");
        api.kubectl(&["apply", "-f", &rbac.display().to_string()])?;
        api.renew_token()?;
        Ok(api)
    }

    /// Starts it again after [`Self::kill`].
    pub fn run(&mut self) -> Result<()> {
        let file = |name: &str| access::file(&self.host, name).display().to_string();
        let mut command = self.host.net.command(program("kube-apiserver")?);
        command.arg(format!("--etcd-servers={}", self.etcd.endpoint(0)));
        command.arg(format!("--advertise-address={}", self.host.v4));
        command.arg(format!("--tls-cert-file={}", file("server.crt")));
        command.arg(format!("--tls-private-key-file={}", file("server.key")));
        command.arg(format!("--cert-dir={}", file("")));
        command.arg(format!("--token-auth-file={}", file("tokens.csv")));
        command.arg(format!("--service-account-key-file={}", file("accounts.pub")));
        command.arg(format!("--service-account-signing-key-file={}", file("accounts.key")));
        command.arg("--service-account-issuer=https://kubernetes.default.svc");
        command.arg("--service-cluster-ip-range=10.96.0.0/16");
        // Since 1.23 it is so without a word.
        if text_of(&program("kube-apiserver")?, "--version")?.contains("v1.20.") {
            command.arg("--feature-gates=IPv6DualStack=true");
        }
        // The controller-manager makes what this one asks for; there is none.
        command.args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"]);
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

    fn kubectl_with(&self, arguments: &[&str], input: &Value) -> Result<String> {
        let config = access::file(&self.host, "admin.kubeconfig");
        let mut command = self.host.net.command(program("kubectl")?);
        command.arg(format!("--kubeconfig={}", config.display())).args(arguments);
        // Where it keeps what it learns of the API.
        command.env("HOME", self.host.directory()).arg("--request-timeout=5s");
        let piped = (Stdio::piped(), Stdio::piped(), Stdio::piped());
        let mut child = command.stdin(piped.0).stdout(piped.1).stderr(piped.2).spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        if !input.is_null() {
            stdin.write_all(input.to_string().as_bytes())?;
        }
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

fn text_of(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A program of Kubernetes: of `KUBE_BIN`, or as tests/kubernetes/setup.sh built it.
fn program(name: &str) -> Result<PathBuf> {
    let given = env::var_os("KUBE_BIN").filter(|given| !given.is_empty()).map(PathBuf::from);
    let cache = || {
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
        let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home)?;
        Some(cache.join("netd-testbed/kubernetes/bin"))
    };
    let directory = given.or_else(cache).context("neither KUBE_BIN nor HOME is set")?;
    let path = directory.join(name);
    ensure!(fs::exists(&path)?, "{} is not there: run `make setup-kubernetes`", path.display());
    Ok(path)
}
