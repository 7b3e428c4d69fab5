//! Synchronize: the runtime's whole set of pods, which it sends on connecting.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use netd_api::v1::{Endpoint, Sandbox, SynchronizeRequest as NetdSynchronize};
use netd_domain::Backoff;
use prost::Message;
use tokio::{task::JoinHandle, time::Instant};
use tonic::Code;

use super::{
    messages::{Status, SynchronizeRequest},
    netd::Netd,
    pods::{sandbox, until},
};

/// Limit of the encoded set of pods, of which the runtime sends parts. A pod has a few kB.
const MAX_SET_BYTES: usize = 64 << 20;
/// Limit of one attempt to send netd the set.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
const DELIVERY_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// The parts of the set that have arrived so far.
#[derive(Default)]
pub(super) struct PodSetParts {
    sandboxes: Vec<Sandbox>,
    bytes: usize,
}

impl PodSetParts {
    /// Adds a part; returns the whole set with the last one.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when the set gets too large; all parts are dropped then.
    pub(super) fn add(&mut self, part: SynchronizeRequest) -> Result<Option<Vec<Sandbox>>, Status> {
        self.bytes += part.pods.iter().map(Message::encoded_len).sum::<usize>();
        if self.bytes > MAX_SET_BYTES {
            *self = Self::default();
            let message = format!("netd: the set of pods is larger than {MAX_SET_BYTES} bytes");
            return Err(Status::new(Code::ResourceExhausted as i32, message));
        }
        self.sandboxes.extend(part.pods.iter().map(sandbox));
        Ok(if part.more { None } else { Some(std::mem::take(self).sandboxes) })
    }
}

/// The task that sends netd a set of pods; dropping it cancels the task.
pub(super) struct Delivery(JoinHandle<()>);

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Delivery {
    /// Sends netd the set, retrying while netd is unreachable, and then the labels and
    /// annotations that netd does not know yet.
    ///
    /// The runtime gets its answer without waiting for this. It disconnects a plugin whose
    /// Synchronize fails, a pre-installed one for good, and pods would then run unchecked only
    /// because netd started after the runtime. An outdated set does no harm: netd's garbage
    /// collection removes no endpoint whose namespace exists.
    pub(super) fn start(netd: Arc<dyn Netd>, sandboxes: Vec<Sandbox>) -> Self {
        Self(tokio::spawn(async move {
            let mut backoff = DELIVERY_BACKOFF;
            let mut last_problem = String::new();
            while let Err(e) = deliver(&netd, &sandboxes).await {
                let (problem, delay) =
                    (e.message().to_owned(), backoff.next_delay(fastrand::f64()));
                if problem != last_problem {
                    tracing::warn!(
                        problem,
                        ?delay,
                        "can't send netd the set of pods: {problem}; retrying"
                    );
                }
                last_problem = problem;
                tokio::time::sleep(delay).await;
            }
            annotate_outdated(netd, sandboxes).await;
        }))
    }
}

async fn deliver(netd: &Arc<dyn Netd>, sandboxes: &[Sandbox]) -> Result<(), tonic::Status> {
    let request = NetdSynchronize {
        source: "nri".to_owned(),
        sandboxes: sandboxes.iter().map(without_labels).collect(),
        ..NetdSynchronize::default()
    };
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    let answer = until(deadline, "Synchronize", netd.synchronize(request)).await?;
    let (known, unknown) = (answer.known, answer.unknown);
    let pods = sandboxes.len();
    tracing::info!(
        pods,
        known,
        unknown,
        "sent netd the runtime's {pods} pods; it has endpoints of {known}"
    );
    Ok(())
}

/// Labels and annotations are left out: with them the set of a large node would exceed the
/// size limit of a message.
fn without_labels(sandbox: &Sandbox) -> Sandbox {
    Sandbox {
        id: sandbox.id.clone(),
        netns_path: sandbox.netns_path.clone(),
        pod: sandbox.pod.clone(),
        ..Sandbox::default()
    }
}

/// Sends netd the labels, annotations and identity of pods whose endpoints lack some: they were
/// created while this front was not running.
async fn annotate_outdated(netd: Arc<dyn Netd>, sandboxes: Vec<Sandbox>) {
    let endpoints = match netd.endpoints().await {
        Ok(endpoints) => endpoints,
        Err(e) => {
            tracing::warn!(error = %e, "can't update the labels of running pods: {}", e.message());
            return;
        }
    };
    let mut known: HashMap<&str, Vec<&Endpoint>> = HashMap::new();
    for endpoint in &endpoints {
        known.entry(&endpoint.sandbox_id).or_default().push(endpoint);
    }
    for sandbox in sandboxes {
        let endpoints = known.get(sandbox.id.as_str());
        if !endpoints.is_some_and(|all| all.iter().any(|e| is_outdated(e, &sandbox))) {
            continue;
        }
        let id = sandbox.id.clone();
        match netd.annotate(sandbox).await {
            Ok(_) => tracing::debug!(sandbox = %id, "updated the labels of sandbox {id}"),
            // The sandbox was detached in the meantime.
            Err(e) if e.code() == Code::NotFound => {}
            Err(e) => {
                let error = e.message();
                tracing::warn!(sandbox = %id, error, "can't update the labels of sandbox {id}: {error}");
            }
        }
    }
}

/// Whether the endpoint lacks something that the runtime says about the pod.
fn is_outdated(endpoint: &Endpoint, sandbox: &Sandbox) -> bool {
    let lacks = |have: &BTreeMap<String, String>, want: &BTreeMap<String, String>| {
        want.iter().any(|(k, v)| have.get(k) != Some(v))
    };
    sandbox.pod != endpoint.pod
        || lacks(&endpoint.labels, &sandbox.labels)
        || lacks(&endpoint.annotations, &sandbox.annotations)
}
