//! What the front does when a pod's sandbox starts, stops and is removed.
//!
//! CNI ADD creates the pod's eth0 and CNI DEL removes it, because runtimes read the pod's
//! address from the CNI result only. This front checks that eth0 is attached, passes the pod's
//! identity and labels to netd, and attaches and detaches the additional networks.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use netd_api::suggest::closest;
use netd_api::{
    annotations,
    v1::{AttachRequest, DetachRequest, Endpoint, EndpointState, PodIdentity, Sandbox},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{
    messages::PodSandbox,
    netd::Netd,
    networks::{self, AdditionalNetwork, PRIMARY_INTERFACE},
    options::Policy,
};
use crate::{clock::boottime_ns, excerpt::excerpt};

/// The annotation that says which CNI plugin creates the pod's eth0: `netd` or `other`.
const PRIMARY_ANNOTATION: &str = annotations::PRIMARY;

/// How long a roll-back may continue after the runtime has its reply.
const ROLL_BACK_TIMEOUT: Duration = Duration::from_secs(10);

type Result<T, E = Status> = std::result::Result<T, E>;

/// The points in time at which parts of an event's handling must end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// After this no call is started or awaited; the time up to `reply` is for the roll-back.
    pub(super) work: Instant,
    /// The reply to the runtime must be sent by then.
    pub(super) reply: Instant,
}

/// Handles one event of a pod.
pub(super) struct PodEvents<'a> {
    /// Does the work.
    pub(super) netd: &'a Arc<dyn Netd>,
    /// Which pods may run without netd's eth0.
    pub(super) policy: &'a Policy,
    /// Until when the event must be handled.
    pub(super) deadlines: Deadlines,
}

impl PodEvents<'_> {
    /// RunPodSandbox: the sandbox runs and no container of the pod exists yet. An error makes
    /// the runtime remove the sandbox.
    pub(super) async fn run(&self, pod: &PodSandbox) -> Result<()> {
        let Some(netns) = pod.netns() else {
            tracing::debug!(sandbox = %pod.id, "sandbox {} uses the host network", pod.id);
            return Ok(());
        };
        check_annotations(pod)?;
        let must_have_primary = self.must_have_primary(pod)?;
        let networks = additional_networks(pod)?;
        match self.confirm_primary(pod).await {
            Err(error) if must_have_primary => return Err(error),
            Err(error) => {
                let (id, error) = (&pod.id, error.message());
                tracing::info!(
                    sandbox = %id,
                    error,
                    "eth0 of sandbox {id} is not netd's, which is allowed: {error}"
                );
            }
            Ok(()) => {}
        }
        self.attach_all(pod, netns, &networks).await?;
        let (pod_name, networks) = (name(pod), networks.len());
        tracing::info!(
            sandbox = %pod.id,
            pod = pod_name,
            networks,
            "pod {pod_name} may run, with {networks} additional networks"
        );
        Ok(())
    }

    /// StopPodSandbox: detaches the additional networks. eth0 is left to CNI DEL, which the
    /// runtime repeats when it fails; a failure of this event it only logs.
    pub(super) async fn stop(&self, pod: &PodSandbox) -> Result<()> {
        // Nothing was attached for an annotation that can't be parsed.
        let networks = additional_networks(pod).unwrap_or_default();
        let mut result = Ok(());
        for AdditionalNetwork { interface, .. } in networks {
            let operation = format!("Detach of {interface}");
            let call = self.netd.detach(detach(&pod.id, &interface));
            result = until(self.deadlines.reply, &operation, call).await.map(drop).and(result);
        }
        result
    }

    /// RemovePodSandbox: detaches everything that the sandbox still has.
    pub(super) async fn remove(&self, pod: &PodSandbox) -> Result<()> {
        let call = self.netd.detach(detach(&pod.id, ""));
        let removed = until(self.deadlines.reply, "Detach of the sandbox", call).await?;
        if removed > 0 {
            let name = name(pod);
            tracing::info!(
                sandbox = %pod.id,
                pod = name,
                removed,
                "detached {removed} endpoints that the removed pod {name} still had"
            );
        }
        Ok(())
    }

    fn must_have_primary(&self, pod: &PodSandbox) -> Result<bool> {
        match pod.annotations.get(PRIMARY_ANNOTATION).map(String::as_str) {
            Some("other") if self.may_be_unattached(pod) => Ok(false),
            Some("other") => Err(Status::permission_denied(format!(
                "annotation {PRIMARY_ANNOTATION}: pods of namespace {:?} may not leave eth0 to \
                 another CNI plugin; the administrator of the node allows it by \
                 --unattached-namespace {} of `netd-hook nri`",
                excerpt(&pod.namespace),
                excerpt(&pod.namespace)
            ))),
            Some("netd") => Ok(true),
            Some(value) => {
                let value = excerpt(value);
                Err(Status::invalid_argument(format!(
                    "annotation {PRIMARY_ANNOTATION}: {value:?} is not \"netd\" or \"other\""
                )))
            }
            None => Ok(!self.policy.lets_handler(&pod.runtime_handler)),
        }
    }

    fn may_be_unattached(&self, pod: &PodSandbox) -> bool {
        self.policy.lets_handler(&pod.runtime_handler) || self.policy.lets_namespace(&pod.namespace)
    }

    /// Annotate both passes the pod's identity to netd and shows whether eth0 is attached.
    async fn confirm_primary(&self, pod: &PodSandbox) -> Result<()> {
        let call = self.netd.annotate(sandbox(pod));
        let endpoints = match until(self.deadlines.work, "Annotate", call).await {
            Err(e) if e.code() == Code::NotFound => Vec::new(),
            other => other?,
        };
        let state =
            endpoints.iter().find(|e| e.interface == PRIMARY_INTERFACE).map(Endpoint::state);
        match state {
            Some(EndpointState::Attached | EndpointState::Attaching) => Ok(()),
            Some(_) => Err(Status::failed_precondition(
                "its eth0 is being detached, because the runtime has already removed the sandbox",
            )),
            None => Err(Status::failed_precondition(format!(
                "netd did not attach its eth0. Is netd's CNI configuration the first in the \
                 runtime's conf_dir? If another plugin creates eth0 on purpose, the administrator \
                 of the node gives `netd-hook nri` --unattached-handler {:?} or \
                 --allow-unattached, or --unattached-namespace {:?}, with which the pod says so by \
                 annotation {PRIMARY_ANNOTATION}: \"other\"",
                pod.runtime_handler, pod.namespace
            ))),
        }
    }

    /// Attaches all additional networks, or none.
    async fn attach_all(
        &self,
        pod: &PodSandbox,
        netns: &str,
        networks: &[AdditionalNetwork],
    ) -> Result<()> {
        for (attached, network) in networks.iter().enumerate() {
            let operation =
                format!("Attach of {} to network {}", network.interface, network.network);
            let call = self.netd.attach(attach(pod, netns, network));
            let Err(error) = until(self.deadlines.work, &operation, call).await else { continue };
            let uncertain = usize::from(may_be_attached(error.code()));
            self.roll_back(&pod.id, &networks[..attached + uncertain]).await;
            let (code, reason) = (error.code(), error.message());
            let text = format!("annotation {}: {operation}: {reason}", networks::ANNOTATION);
            return Err(Status::new(code, text));
        }
        Ok(())
    }

    /// Detaches these networks. It continues in the background when the runtime needs its reply.
    async fn roll_back(&self, sandbox: &str, networks: &[AdditionalNetwork]) {
        let netd = Arc::clone(self.netd);
        let requests: Vec<_> = networks.iter().map(|n| detach(sandbox, &n.interface)).collect();
        let work = tokio::spawn(async move {
            let deadline = Instant::now() + ROLL_BACK_TIMEOUT;
            for request in requests {
                let (sandbox, interface) = (request.sandbox_id.clone(), request.interface.clone());
                match until(deadline, "Detach", netd.detach(request)).await {
                    Ok(_) => tracing::info!(
                        sandbox,
                        interface,
                        "rolled back the attach of {interface} of sandbox {sandbox}"
                    ),
                    Err(e) => {
                        let error = e.message();
                        tracing::error!(
                            sandbox,
                            interface,
                            error,
                            "can't roll back the attach of {interface} of sandbox {sandbox}: \
                             {error}; netd's garbage collection removes it after the sandbox"
                        );
                    }
                }
            }
        });
        let _still_running = timeout_at(self.deadlines.reply, work).await;
    }
}

/// Whether an attach that failed with this code may have created the endpoint. netd refuses with
/// the codes listed here before it changes anything; with ALREADY_EXISTS the interface belongs
/// to another attach and must stay.
fn may_be_attached(code: Code) -> bool {
    use Code::{
        AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, PermissionDenied,
        ResourceExhausted,
    };
    let refused = [
        AlreadyExists,
        FailedPrecondition,
        InvalidArgument,
        NotFound,
        PermissionDenied,
        ResourceExhausted,
    ];
    !refused.contains(&code)
}

/// Refuses annotations of netd's that nothing reads: the pod's author meant another network than
/// the pod would get.
fn check_annotations(pod: &PodSandbox) -> Result<()> {
    let known = &annotations::OF_PODS;
    let Some(key) = pod.annotations.keys().find(|key| annotations::is_unread(key, known)) else {
        return Ok(());
    };
    let hint = if annotations::OF_CONTAINERS.contains(&key.as_str()) {
        format!("it is for containers of the OCI hook; pods use {}", annotations::NETWORKS)
    } else {
        match closest(key, known) {
            Some(name) => format!("did you mean {name:?}?"),
            None => format!("netd knows {}", known.join(", ")),
        }
    };
    let text = format!("annotation {:?} is unknown; {hint}", excerpt(key));
    Err(Status::invalid_argument(text))
}

fn additional_networks(pod: &PodSandbox) -> Result<Vec<AdditionalNetwork>> {
    let Some(value) = pod.annotations.get(networks::ANNOTATION) else { return Ok(Vec::new()) };
    networks::parse(value).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Waits for a call of netd until `deadline`.
///
/// # Errors
/// Those of the call; DEADLINE_EXCEEDED, which names `operation`.
pub(super) async fn until<T>(
    deadline: Instant,
    operation: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout_at(deadline, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "netd did not answer {operation} before the runtime's timeout; see journalctl -u netd"
        ))),
    }
}

fn name(pod: &PodSandbox) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn identity(pod: &PodSandbox) -> PodIdentity {
    PodIdentity { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

/// Labels or annotations without those that the runtime itself adds. They repeat what the pod
/// already says and would double the size of netd's records.
fn of_the_pod(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const RUNTIME: [&str; 3] = ["io.kubernetes.cri.", "io.kubernetes.cri-o.", "io.cri-containerd."];
    let is_runtimes = |key: &str| RUNTIME.iter().any(|prefix| key.starts_with(prefix));
    all.iter()
        .filter(|(key, _)| !is_runtimes(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What the runtime says about a pod, as netd's message.
pub(super) fn sandbox(pod: &PodSandbox) -> Sandbox {
    Sandbox {
        id: pod.id.clone(),
        netns_path: pod.netns().unwrap_or_default().to_owned(),
        pod: Some(identity(pod)),
        labels: of_the_pod(&pod.labels),
        annotations: of_the_pod(&pod.annotations),
    }
}

fn attach(pod: &PodSandbox, netns: &str, network: &AdditionalNetwork) -> AttachRequest {
    AttachRequest {
        sandbox_id: pod.id.clone(),
        netns_path: netns.to_owned(),
        interface: network.interface.clone(),
        network: network.network.clone(),
        pod: Some(identity(pod)),
        labels: of_the_pod(&pod.labels),
        annotations: of_the_pod(&pod.annotations),
        addresses: network.addresses.clone(),
        mac: network.mac.clone(),
        no_default_route: !network.default_route,
        default_route: network.default_route,
        issued_at: boottime_ns(),
        source: "nri".to_owned(),
        ..AttachRequest::default()
    }
}

fn detach(sandbox: &str, interface: &str) -> DetachRequest {
    DetachRequest {
        sandbox_id: sandbox.to_owned(),
        interface: interface.to_owned(),
        issued_at: boottime_ns(),
        ..DetachRequest::default()
    }
}
