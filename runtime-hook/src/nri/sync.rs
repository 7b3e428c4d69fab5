//! The runtime's whole set of pods, on connecting.

use std::{collections::HashMap, sync::Arc};

use netd_api::v1::{Endpoint, Sandbox, SynchronizeRequest as NetdSynchronize};
use prost::Message;
use tonic::Code;

use super::{
    messages::{Status, SynchronizeRequest, SynchronizeResponse},
    netd::Netd,
    pods::{Budget, sandbox, within},
};

/// Most that is held of a set that comes in parts, encoded. A pod is a few kB.
const MOST_BYTES: usize = 64 << 20;

/// The parts that have come so far.
#[derive(Default)]
pub struct Collection {
    sandboxes: Vec<Sandbox>,
    bytes: usize,
}

impl Collection {
    /// Takes one part; after the last one netd gets the whole set.
    ///
    /// # Errors
    /// When netd did not take it, or it is too big. Nothing is kept then.
    pub async fn add(
        &mut self,
        part: SynchronizeRequest,
        netd: &Arc<dyn Netd>,
        budget: Budget,
    ) -> Result<SynchronizeResponse, Status> {
        self.bytes += part.pods.iter().map(Message::encoded_len).sum::<usize>();
        if self.bytes > MOST_BYTES {
            *self = Self::default();
            let message = format!("netd: the set of pods is larger than {MOST_BYTES} bytes");
            return Err(Status { code: Code::ResourceExhausted as i32, message });
        }
        self.sandboxes.extend(part.pods.iter().map(sandbox));
        if part.more {
            return Ok(SynchronizeResponse { more: true });
        }
        let sandboxes = std::mem::take(self).sandboxes;
        let request = NetdSynchronize {
            source: "nri".to_owned(),
            sandboxes: sandboxes.iter().map(bare).collect(),
            ..NetdSynchronize::default()
        };
        let call = netd.synchronize(request);
        let answer = within(budget.reply, "Synchronize", call).await.map_err(|e| Status {
            code: e.code() as i32,
            message: format!("netd: Synchronize: {}", e.message()),
        })?;
        let (known, unknown) = (answer.known, answer.unknown);
        tracing::info!(pods = sandboxes.len(), known, unknown, "synchronized");
        // Not in the runtime's time: with many pods it takes longer than a hook may.
        tokio::spawn(annotate_known(Arc::clone(netd), sandboxes));
        Ok(SynchronizeResponse { more: false })
    }
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
    let lacks = |have: &HashMap<String, String>, want: &HashMap<String, String>| {
        want.iter().any(|(k, v)| have.get(k) != Some(v))
    };
    sandbox.pod != endpoint.pod
        || lacks(&endpoint.labels, &sandbox.labels)
        || lacks(&endpoint.annotations, &sandbox.annotations)
}
