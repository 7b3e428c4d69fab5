//! The runtime's whole set of pods, on connecting.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use netd_api::v1::{Endpoint, Sandbox, SynchronizeRequest as NetdSynchronize};
use prost::Message;
use tokio::{task::JoinHandle, time::Instant};
use tonic::Code;

use super::{
    backoff::Backoff,
    messages::{Status, SynchronizeRequest},
    netd::Netd,
    pods::{sandbox, within},
};

/// Most that is held of a set that comes in parts, encoded. A pod is a few kB.
const MOST_BYTES: usize = 64 << 20;
/// For one attempt.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The parts that have come so far.
#[derive(Default)]
pub struct Collection {
    sandboxes: Vec<Sandbox>,
    bytes: usize,
}

impl Collection {
    /// Takes one part; the whole set with the last one.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when it gets too big. Nothing is kept then.
    pub fn add(&mut self, part: SynchronizeRequest) -> Result<Option<Vec<Sandbox>>, Status> {
        self.bytes += part.pods.iter().map(Message::encoded_len).sum::<usize>();
        if self.bytes > MOST_BYTES {
            *self = Self::default();
            let message = format!("netd: the set of pods is larger than {MOST_BYTES} bytes");
            return Err(Status { code: Code::ResourceExhausted as i32, message });
        }
        self.sandboxes.extend(part.pods.iter().map(sandbox));
        Ok(if part.more { None } else { Some(std::mem::take(self).sandboxes) })
    }
}

/// A set on its way to netd; dropping it gives it up.
pub struct Delivery(JoinHandle<()>);

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Delivery {
    /// Hands netd the set, however long it is away, and then what it missed about
    /// the pods. Not in the runtime's time: a runtime drops a plugin whose
    /// Synchronize fails, a pre-installed one for good, and then pods would run
    /// unguarded because netd started after the runtime. A set grown old does no
    /// harm: netd collects nothing whose namespace is there.
    pub fn start(netd: Arc<dyn Netd>, sandboxes: Vec<Sandbox>) -> Self {
        Self(tokio::spawn(async move {
            let mut backoff = Backoff::default();
            let mut last_problem = String::new();
            while let Err(e) = deliver(&netd, &sandboxes).await {
                let (problem, delay) = (e.message().to_owned(), backoff.next());
                if problem != last_problem {
                    tracing::warn!(problem, ?delay, "netd did not take the set of pods yet");
                }
                last_problem = problem;
                tokio::time::sleep(delay).await;
            }
            annotate_known(netd, sandboxes).await;
        }))
    }
}

async fn deliver(netd: &Arc<dyn Netd>, sandboxes: &[Sandbox]) -> Result<(), tonic::Status> {
    let request = NetdSynchronize {
        source: "nri".to_owned(),
        sandboxes: sandboxes.iter().map(bare).collect(),
        ..NetdSynchronize::default()
    };
    let until = Instant::now() + DELIVERY_TIMEOUT;
    let answer = within(until, "Synchronize", netd.synchronize(request)).await?;
    let (known, unknown) = (answer.known, answer.unknown);
    tracing::info!(pods = sandboxes.len(), known, unknown, "synchronized");
    Ok(())
}

/// Without labels and annotations: the set of a big node would not fit a message.
fn bare(sandbox: &Sandbox) -> Sandbox {
    Sandbox {
        id: sandbox.id.clone(),
        netns_path: sandbox.netns_path.clone(),
        pod: sandbox.pod.clone(),
        ..Sandbox::default()
    }
}

/// Tells netd what it missed about pods that were made while the front was away.
async fn annotate_known(netd: Arc<dyn Netd>, sandboxes: Vec<Sandbox>) {
    let endpoints = match netd.endpoints().await {
        Ok(endpoints) => endpoints,
        Err(e) => {
            tracing::warn!(error = %e, "labels of running pods not brought up to date");
            return;
        }
    };
    let mut known: HashMap<&str, Vec<&Endpoint>> = HashMap::new();
    for endpoint in &endpoints {
        known.entry(&endpoint.sandbox_id).or_default().push(endpoint);
    }
    for sandbox in sandboxes {
        let stale =
            known.get(sandbox.id.as_str()).is_some_and(|es| es.iter().any(|e| news(&sandbox, e)));
        if !stale {
            continue;
        }
        let id = sandbox.id.clone();
        match netd.annotate(sandbox).await {
            Ok(_) => tracing::debug!(sandbox = %id, "annotated"),
            // Detached in the meantime.
            Err(e) if e.code() == Code::NotFound => {}
            Err(e) => tracing::warn!(sandbox = %id, error = %e, "not annotated"),
        }
    }
}

/// Whether the runtime knows anything of the pod that the endpoint does not.
fn news(sandbox: &Sandbox, endpoint: &Endpoint) -> bool {
    let lacks = |have: &BTreeMap<String, String>, want: &BTreeMap<String, String>| {
        want.iter().any(|(k, v)| have.get(k) != Some(v))
    };
    sandbox.pod != endpoint.pod
        || lacks(&endpoint.labels, &sandbox.labels)
        || lacks(&endpoint.annotations, &sandbox.annotations)
}
