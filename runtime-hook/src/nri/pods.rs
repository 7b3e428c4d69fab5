//! What the front does when a pod's sandbox runs, stops and goes.
//!
//! CNI ADD makes the pod's eth0 and CNI DEL releases it: the runtime takes the
//! pod's address from there and nowhere else. Here the attach is confirmed, the
//! endpoint learns whose it is, and additional networks come and go.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use netd_api::v1::{AttachRequest, DetachRequest, Endpoint, EndpointState, PodIdentity, Sandbox};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::{
    messages::PodSandbox,
    netd::Netd,
    networks::{self, PRIMARY_INTERFACE, Wanted},
    options::Policy,
};
use crate::clock::boottime_ns;

/// Annotation by which a pod says whose plugin makes its eth0: `netd` or `other`.
pub const PRIMARY_ANNOTATION: &str = "netd.io/primary";

/// How long a roll-back may go on after the runtime has its answer.
const UNDO_TIMEOUT: Duration = Duration::from_secs(10);

type Result<T, E = Status> = std::result::Result<T, E>;

/// Until when.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// No work is begun or waited for after this; what is left is for undoing.
    pub work: Instant,
    /// The answer must be on its way.
    pub reply: Instant,
}

/// Handles one event.
pub struct Pods<'a> {
    /// Who does the work.
    pub netd: &'a Arc<dyn Netd>,
    /// Whose pods may be without netd's eth0.
    pub policy: &'a Policy,
    /// The time there is.
    pub budget: Budget,
}

impl Pods<'_> {
    /// The sandbox runs, and no container of the pod was made yet: an error here
    /// keeps it so.
    pub async fn run(&self, pod: &PodSandbox) -> Result<()> {
        let Some(netns) = pod.netns() else {
            tracing::debug!(sandbox = %pod.id, "host network, nothing to do");
            return Ok(());
        };
        let must_have_primary = self.must_have_primary(pod)?;
        let wanted = wanted(pod)?;
        let confirmed = self.confirm_primary(pod).await;
        match confirmed {
            Err(error) if must_have_primary => return Err(error),
            Err(error) => {
                let error = error.message();
                tracing::info!(sandbox = %pod.id, error, "eth0 not confirmed by netd; allowed");
            }
            Ok(()) => {}
        }
        self.attach_all(pod, netns, &wanted).await?;
        let networks = wanted.len();
        tracing::info!(sandbox = %pod.id, pod = %name(pod), networks, "pod may run");
        Ok(())
    }

    /// The sandbox stops: takes the additional interfaces away. eth0 is left to
    /// CNI DEL, whose failure the runtime retries; a failure here it only logs.
    pub async fn stop(&self, pod: &PodSandbox) -> Result<()> {
        // Of an annotation that can't be read nothing was attached.
        let wanted = wanted(pod).unwrap_or_default();
        let mut done = Ok(());
        for Wanted { interface, .. } in wanted {
            let what = format!("Detach of {interface}");
            let call = self.netd.detach(detach(&pod.id, &interface));
            done = within(self.budget.reply, &what, call).await.map(drop).and(done);
        }
        done
    }

    /// The sandbox is gone: so is everything of it.
    pub async fn remove(&self, pod: &PodSandbox) -> Result<()> {
        let call = self.netd.detach(detach(&pod.id, ""));
        let removed = within(self.budget.reply, "Detach of the sandbox", call).await?;
        if removed > 0 {
            tracing::info!(sandbox = %pod.id, pod = %name(pod), removed, "detached what was left");
        }
        Ok(())
    }

    fn must_have_primary(&self, pod: &PodSandbox) -> Result<bool> {
        match pod.annotations.get(PRIMARY_ANNOTATION).map(String::as_str) {
            Some("other") => Ok(false),
            Some("netd") => Ok(true),
            Some(value) => {
                let value: String = value.chars().take(64).collect();
                Err(Status::invalid_argument(format!(
                    "annotation {PRIMARY_ANNOTATION}: {value:?}; right is \"netd\" or \"other\""
                )))
            }
            None => {
                let handlers = &self.policy.unattached_handlers;
                Ok(!self.policy.allow_unattached && !handlers.contains(&pod.runtime_handler))
            }
        }
    }

    /// One call both tells netd whose endpoint it is and shows that there is one.
    async fn confirm_primary(&self, pod: &PodSandbox) -> Result<()> {
        let call = self.netd.annotate(sandbox(pod));
        let endpoints = match within(self.budget.work, "Annotate", call).await {
            Err(e) if e.code() == Code::NotFound => Vec::new(),
            other => other?,
        };
        let state =
            endpoints.iter().find(|e| e.interface == PRIMARY_INTERFACE).map(Endpoint::state);
        match state {
            Some(EndpointState::Attached | EndpointState::Attaching) => Ok(()),
            Some(_) => Err(Status::failed_precondition(
                "its eth0 is being detached by netd: the sandbox was given up already",
            )),
            None => Err(Status::failed_precondition(format!(
                "netd did not attach its eth0. Is netd's CNI configuration the first in the \
                 runtime's conf_dir? If another plugin makes eth0 on purpose: annotation \
                 {PRIMARY_ANNOTATION}: \"other\", or --unattached-handler {:?}, or --allow-unattached",
                pod.runtime_handler
            ))),
        }
    }

    /// All or none.
    async fn attach_all(&self, pod: &PodSandbox, netns: &str, all: &[Wanted]) -> Result<()> {
        for (done, wanted) in all.iter().enumerate() {
            let what = format!("Attach of {} to network {}", wanted.interface, wanted.network);
            let call = self.netd.attach(attach(pod, netns, wanted));
            let Err(error) = within(self.budget.work, &what, call).await else { continue };
            let half = usize::from(may_have_been_made(error.code()));
            self.undo(&pod.id, &all[..done + half]).await;
            let (code, why) = (error.code(), error.message());
            return Err(Status::new(
                code,
                format!("annotation {}: {what}: {why}", networks::ANNOTATION),
            ));
        }
        Ok(())
    }

    /// Takes back what was attached. Goes on in the background when there is no
    /// time left: the runtime must have its answer.
    async fn undo(&self, sandbox: &str, made: &[Wanted]) {
        let netd = Arc::clone(self.netd);
        let requests: Vec<_> = made.iter().map(|w| detach(sandbox, &w.interface)).collect();
        let work = tokio::spawn(async move {
            let until = Instant::now() + UNDO_TIMEOUT;
            for request in requests {
                let (sandbox, interface) = (request.sandbox_id.clone(), request.interface.clone());
                match within(until, "Detach", netd.detach(request)).await {
                    Ok(_) => tracing::info!(%sandbox, %interface, "attach undone"),
                    // netd's collector finds it once the sandbox is gone.
                    Err(e) => {
                        tracing::error!(%sandbox, %interface, error = %e, "attach not undone")
                    }
                }
            }
        });
        let _still_running = timeout_at(self.budget.reply, work).await;
    }
}

/// An attach that failed with one of these was refused before it began; after any
/// other it may stand. ALREADY_EXISTS, above all, is somebody else's interface.
fn may_have_been_made(code: Code) -> bool {
    use Code::{AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted};
    let refused = [AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted];
    !refused.contains(&code)
}

fn wanted(pod: &PodSandbox) -> Result<Vec<Wanted>> {
    let Some(value) = pod.annotations.get(networks::ANNOTATION) else { return Ok(Vec::new()) };
    networks::parse(value).map_err(|e| Status::invalid_argument(e.to_string()))
}

/// Waits for netd until `until`.
pub async fn within<T>(
    until: Instant,
    what: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match timeout_at(until, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!(
            "netd did not answer {what} in the time that the runtime gives; see its log"
        ))),
    }
}

fn name(pod: &PodSandbox) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn identity(pod: &PodSandbox) -> PodIdentity {
    PodIdentity { namespace: pod.namespace.clone(), name: pod.name.clone(), uid: pod.uid.clone() }
}

/// Labels or annotations without those that the runtime adds for itself: they
/// would double the size of netd's records and say nothing new.
fn own(all: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    const RUNTIME: [&str; 3] = ["io.kubernetes.cri.", "io.kubernetes.cri-o.", "io.cri-containerd."];
    let own = all.iter().filter(|(key, _)| !RUNTIME.iter().any(|prefix| key.starts_with(prefix)));
    own.map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// All that the runtime says about a pod.
pub fn sandbox(pod: &PodSandbox) -> Sandbox {
    Sandbox {
        id: pod.id.clone(),
        netns_path: pod.netns().unwrap_or_default().to_owned(),
        pod: Some(identity(pod)),
        labels: own(&pod.labels),
        annotations: own(&pod.annotations),
    }
}

fn attach(pod: &PodSandbox, netns: &str, wanted: &Wanted) -> AttachRequest {
    AttachRequest {
        sandbox_id: pod.id.clone(),
        netns_path: netns.to_owned(),
        interface: wanted.interface.clone(),
        network: wanted.network.clone(),
        pod: Some(identity(pod)),
        labels: own(&pod.labels),
        annotations: own(&pod.annotations),
        addresses: wanted.addresses.clone(),
        mac: wanted.mac.clone(),
        no_default_route: true,
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
    }
}
