//! A node of a whole cluster.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use netd_api::v1::{
    Endpoint, ListEndpointsRequest, endpoint_service_client::EndpointServiceClient,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;

use super::{ApiServer, access, cgroups, mounts::Mounts, program};
use crate::{
    bed::Bed,
    block_on,
    containerd::{Containerd, Version},
    cri::channel,
    host::Host,
    image::PAUSE,
    service::Service,
};

/// Dropped in this order.
#[derive(Debug)]
pub struct KubeNode {
    kubelet: Service,
    _proxy: Service,
    /// Its runtime.
    pub containerd: Containerd,
    mounts: Mounts,
    /// Its network.
    pub host: Host,
    pki: PathBuf,
    dual: bool,
}

impl KubeNode {
    /// Starts its programs; nothing is waited for.
    pub(super) fn start(bed: &Bed, api: &ApiServer, name: &str) -> Result<Self> {
        let host = bed.host(name)?;
        // As on a machine where br_netfilter was loaded and nothing was set.
        host.net.sh("sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=0")?;
        cgroups::make(&cgroups::name(host.directory()))?;
        let mounts = Mounts::make(&host)?;
        let containerd = Containerd::in_a_node(&host, runtime()?, mounts.enter())?;
        let (pki, dual) = (access::file(&api.host, ""), api.dual);
        let kubelet = kubelet(&host, &mounts, &pki, dual)?;
        let proxy = proxy(&host, &mounts, &pki, dual)?;
        Ok(Self { kubelet, _proxy: proxy, containerd, mounts, host, pki, dual })
    }

    /// SIGKILL, and another one.
    pub fn restart_kubelet(&mut self) -> Result<()> {
        self.kubelet.kill9()?;
        self.kubelet = kubelet(&self.host, &self.mounts, &self.pki, self.dual)?;
        Ok(())
    }

    /// Runs a shell script where its pods' hostPaths are, and answers what it printed.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.mounts.command(Path::new("sh")).args(["-ec", script]).output()?;
        let messages = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`{script}` on {}: {messages}", self.host.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// SIGKILL to its netd, which kubelet starts again.
    pub fn kill_netd(&self) -> Result<()> {
        let net = self.host.net.inode()?;
        let mut killed = 0;
        for entry in fs::read_dir("/proc")?.flatten() {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let is_netd = command.starts_with(b"/usr/local/bin/netd\0serve");
            let its_net = fs::metadata(entry.path().join("ns/net")).map(|found| found.ino());
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(pid)) = (is_netd && its_net.is_ok_and(|found| found == net), pid) {
                kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                killed += 1;
            }
        }
        ensure!(killed > 0, "there is no netd on {}", self.host.name);
        Ok(())
    }

    /// Every endpoint of its netd.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let socket = self.host.directory().join("netd/run/netd.sock");
        let mut service = EndpointServiceClient::new(channel(&socket)?);
        let request = ListEndpointsRequest { page_size: 5000, ..Default::default() };
        Ok(block_on(service.list_endpoints(request))?.into_inner().endpoints)
    }
}

/// kubelet asks a version 1.7 by CRI v1alpha2 before 1.26, and wants 2.0 from 1.35 on.
fn runtime() -> Result<Version> {
    Ok(if program::minor()? < 26 { Version::V1_7 } else { Version::V2_1 })
}

fn kubelet(host: &Host, mounts: &Mounts, pki: &Path, dual: bool) -> Result<Service> {
    let here = host.directory();
    let endpoint = format!("unix://{}", Containerd::socket_of(host).display());
    let minor = program::minor()?;
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true,
        "cgroupRoot": format!("/{}", cgroups::name(here)),
        "enforceNodeAllocatable": ["pods"], "failSwapOn": false, "maxPods": 200,
        // This machine's disk is not to be judged.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%",
            "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
        "volumePluginDir": here.join("volume-plugins"),
        "clusterDomain": "cluster.local", "nodeStatusUpdateFrequency": "2s",
    });
    let mut command = mounts.command(&program::path("kubelet")?);
    if minor < 27 {
        command.args(["--container-runtime=remote", "--container-runtime-endpoint", &endpoint]);
        command.arg(format!("--pod-infra-container-image={PAUSE}"));
    } else {
        config["containerRuntimeEndpoint"] = json!(endpoint);
    }
    if minor >= 31 {
        config["failCgroupV1"] = json!(false);
    }
    let path = here.join("kubelet.yaml");
    fs::write(&path, config.to_string())?;
    command.arg(format!("--config={}", path.display()));
    command
        .arg(format!("--kubeconfig={}", pki.join(format!("{}.kubeconfig", host.name)).display()));
    command.arg(format!("--hostname-override={}", host.name));
    if dual {
        command.arg(format!("--node-ip={},{}", host.v4, host.v6)).args(program::dual_stack()?);
    } else {
        command.arg(format!("--node-ip={}", host.v4));
    }
    command.arg(format!("--root-dir={}", here.join("kubelet").display()));
    command.arg(format!("--cert-dir={}", here.join("kubelet/pki").display()));
    Service::start("kubelet", command, &here.join("kubelet.log"))
}

fn proxy(host: &Host, mounts: &Mounts, pki: &Path, dual: bool) -> Result<Service> {
    let mut command = mounts.command(&program::path("kube-proxy")?);
    command.arg(format!("--kubeconfig={}", pki.join("kube-proxy.kubeconfig").display()));
    command.arg(format!("--hostname-override={}", host.name));
    command.arg("--proxy-mode=iptables").arg(program::cluster_cidr(dual));
    if dual {
        command.args(program::dual_stack()?);
    }
    // The table of connections is the whole machine's.
    command.args(["--conntrack-max-per-core=0", "--conntrack-min=0"]);
    Service::start("kube-proxy", command, &host.directory().join("kube-proxy.log"))
}
