//! CRI v1, as kubelet speaks it.

mod connect;

/// Messages and client, generated from `tests/proto/cri.proto`.
pub mod v1 {
    #![allow(clippy::all, clippy::unwrap_used, missing_docs)]
    tonic::include_proto!("runtime.v1");
}

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tonic::{Request, transport::Channel};
use v1::{runtime_service_client::RuntimeServiceClient, *};

pub use connect::channel;

use crate::{block_on, image, namespace::Namespace};

/// What a pod is asked to be.
pub type PodConfig = PodSandboxConfig;

/// A CRI client; clones share the connection.
#[derive(Debug, Clone)]
pub struct Cri {
    client: RuntimeServiceClient<Channel>,
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    /// The sandbox's id.
    pub id: String,
    /// Addresses, the primary first.
    pub ips: Vec<IpAddr>,
    /// Its network namespace's path.
    pub netns: PathBuf,
    config: PodConfig,
}

impl Pod {
    /// For looking at it from inside.
    pub fn net(&self) -> Namespace {
        Namespace::of(&self.netns)
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv4()).copied().context("the pod has no IPv4 address")
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Result<IpAddr> {
        self.ips.iter().find(|ip| ip.is_ipv6()).copied().context("the pod has no IPv6 address")
    }
}

/// A pod's configuration as kubelet would send it.
pub fn pod(name: &str) -> PodConfig {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    PodConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{}-{number}", std::process::id()),
            namespace: "test".to_owned(),
            attempt: 0,
        }),
        hostname: name.to_owned(),
        linux: Some(LinuxPodSandboxConfig::default()),
        ..PodConfig::default()
    }
}

/// A host port for [`pod`]; on every address of the host.
pub fn port(protocol: Protocol, host_port: i32, container_port: i32) -> PortMapping {
    PortMapping { protocol: protocol.into(), host_port, container_port, host_ip: String::new() }
}

/// A call may fail; one without an answer is a fault.
pub fn check_answered(error: &anyhow::Error) -> Result<()> {
    let status = error.chain().find_map(|cause| cause.downcast_ref::<tonic::Status>());
    // Else the sandbox was made, and its status is gone with a restart.
    let Some(status) = status else { return Ok(()) };
    // tonic's own timeout is CANCELLED with these words.
    let silent = status.code() == tonic::Code::DeadlineExceeded
        || status.message().contains("Timeout expired");
    ensure!(!silent, "no answer: {error:#}");
    Ok(())
}

/// kubelet gives RunPodSandbox four minutes; a test that takes one has failed.
fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(60));
    request
}

impl Cri {
    /// Connects to containerd's socket.
    pub fn connect(socket: &Path) -> Result<Self> {
        Ok(Self { client: RuntimeServiceClient::new(channel(socket)?) })
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        self.client.clone()
    }

    /// The runtime's version.
    pub fn version(&self) -> Result<String> {
        let request = within(VersionRequest { version: "v1".to_owned() });
        Ok(block_on(self.client().version(request))?.into_inner().runtime_version)
    }

    /// The condition `NetworkReady`, with its reason when it is not.
    pub fn network_ready(&self) -> Result<()> {
        let status = block_on(self.client().status(within(StatusRequest { verbose: false })))?;
        let conditions = status.into_inner().status.unwrap_or_default().conditions;
        let network = conditions.into_iter().find(|condition| condition.r#type == "NetworkReady");
        match network {
            Some(network) if network.status => Ok(()),
            other => bail!("the runtime's network is not ready: {other:?}"),
        }
    }

    /// RunPodSandbox alone; answers its id.
    pub fn run(&self, config: &PodConfig) -> Result<String> {
        let config = Some(config.clone());
        let request = within(RunPodSandboxRequest { config, runtime_handler: String::new() });
        let answer = block_on(self.client().run_pod_sandbox(request)).context("RunPodSandbox")?;
        Ok(answer.into_inner().pod_sandbox_id)
    }

    /// Runs a pod and reads its addresses from its status.
    pub fn run_pod(&self, config: PodConfig) -> Result<Pod> {
        let id = self.run(&config)?;
        let (status, info) = self.status(&id)?;
        let network = status.network.unwrap_or_default();
        let additional = network.additional_ips.iter().map(|additional| &additional.ip);
        let ips = std::iter::once(&network.ip).chain(additional);
        let ips = ips.map(|ip| ip.parse().with_context(|| format!("pod address `{ip}`")));
        Ok(Pod { id, ips: ips.collect::<Result<_>>()?, netns: netns(&info)?, config })
    }

    fn status(&self, id: &str) -> Result<(PodSandboxStatus, Value)> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer = block_on(self.client().pod_sandbox_status(within(request)))
            .context("PodSandboxStatus")?
            .into_inner();
        let info = answer.info.get("info").map_or("{}", String::as_str);
        let info = serde_json::from_str(info).context("the status' verbose part")?;
        Ok((answer.status.unwrap_or_default(), info))
    }

    /// StopPodSandbox.
    pub fn stop(&self, id: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        block_on(self.client().stop_pod_sandbox(within(request))).context("StopPodSandbox")?;
        Ok(())
    }

    /// RemovePodSandbox.
    pub fn remove(&self, id: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        block_on(self.client().remove_pod_sandbox(within(request))).context("RemovePodSandbox")?;
        Ok(())
    }

    /// Ids of all sandboxes.
    pub fn pods(&self) -> Result<Vec<String>> {
        let answer = block_on(self.client().list_pod_sandbox(within(ListPodSandboxRequest {})))
            .context("ListPodSandbox")?;
        Ok(answer.into_inner().items.into_iter().map(|item| item.id).collect())
    }

    /// Creates and starts a container of the pod that runs a shell script.
    pub fn run_container(&self, pod: &Pod, name: &str, script: &str) -> Result<String> {
        let metadata = ContainerMetadata { name: name.to_owned(), attempt: 0 };
        let config = ContainerConfig {
            metadata: Some(metadata),
            image: Some(ImageSpec { image: image::TEST.to_owned() }),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            linux: Some(LinuxContainerConfig::default()),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let created = block_on(self.client().create_container(within(request)));
        let container_id = created.context("CreateContainer")?.into_inner().container_id;
        let request = StartContainerRequest { container_id: container_id.clone() };
        block_on(self.client().start_container(within(request))).context("StartContainer")?;
        Ok(container_id)
    }

    /// Runs a shell script in a container; an error unless it succeeds.
    pub fn exec(&self, container: &str, script: &str) -> Result<String> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            timeout: 20,
        };
        let answer = block_on(self.client().exec_sync(within(request)))?.into_inner();
        let printed = String::from_utf8_lossy(&answer.stdout).into_owned();
        if answer.exit_code != 0 {
            let messages = String::from_utf8_lossy(&answer.stderr);
            bail!("`{script}` ended with {}: {printed}{messages}", answer.exit_code);
        }
        Ok(printed)
    }
}

fn netns(info: &Value) -> Result<PathBuf> {
    let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
    let network = namespaces
        .into_iter()
        .flatten()
        .find(|namespace| namespace["type"] == "network")
        .and_then(|namespace| namespace["path"].as_str());
    Ok(network.context("the pod's status names no network namespace")?.into())
}
