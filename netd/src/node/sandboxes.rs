//! What runtimes report about their sandboxes.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    clock::now_boot,
    core::Node,
    error::{Error, Result},
    run_to_end::run_to_end,
};
use netd_domain::{Endpoint, EndpointKey, NetworkName, Phase, PodIdentity, SandboxId};

/// A sandbox as a runtime describes it.
#[derive(Debug, Clone)]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Who the pod is, if the runtime says.
    pub pod: Option<PodIdentity>,
    /// The pod's labels.
    pub labels: BTreeMap<String, String>,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The result of a synchronisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Synchronized {
    /// Endpoints whose sandbox is in the set.
    pub known: u32,
    /// Endpoints whose sandbox is in no source's set.
    pub unknown: u32,
    /// Endpoints removed (authoritative sets only).
    pub removed: u32,
}

/// There are few runtimes; a faulty caller must not fill the memory.
const MAX_SOURCES: usize = 16;

impl Node {
    /// Replaces the set of sandboxes that `source` lists. If the set is authoritative, the
    /// endpoints that this source made for other sandboxes are removed.
    ///
    /// # Errors
    /// A removal that failed; it is completed later.
    pub async fn synchronize(
        self: &Arc<Self>,
        source: &str,
        sandboxes: HashSet<SandboxId>,
        network: Option<NetworkName>,
        authoritative: bool,
    ) -> Result<Synchronized> {
        let mut counts = Synchronized::default();
        let mut unknown = Vec::new();
        for (endpoint, _) in self.state.endpoints() {
            let judged = network.as_ref().is_none_or(|n| *n == endpoint.network)
                && (!authoritative || endpoint.source == source);
            if endpoint.phase != Phase::Attached || !judged {
                continue;
            }
            if sandboxes.contains(&endpoint.key.sandbox) {
                counts.known += 1;
            } else {
                unknown.push(endpoint);
            }
        }
        if authoritative {
            for endpoint in unknown {
                let EndpointKey { sandbox, ifname } = endpoint.key.clone();
                tracing::info!(endpoint = %endpoint.key, source, "removing {}: {source} does not list its sandbox", endpoint.key);
                counts.removed += self.detach(sandbox, Some(ifname), now_boot()).await?;
            }
            return Ok(counts);
        }
        if !self.state.set_source(source, sandboxes, MAX_SOURCES) {
            let text = format!("\"{source}\": more than {MAX_SOURCES} sources");
            return Err(netd_domain::Invalid::field("source", text).into());
        }
        let nobody = |e: &&Arc<Endpoint>| !self.state.is_known(&e.key.sandbox);
        counts.unknown = u32::try_from(unknown.iter().filter(nobody).count()).unwrap_or(u32::MAX);
        Ok(counts)
    }

    /// Adds what a runtime learned after the attach to every endpoint of a sandbox.
    /// Runs to its end even if the caller goes away.
    ///
    /// # Errors
    /// [`Error::NoSandbox`] when it has no endpoint.
    pub async fn annotate(self: &Arc<Self>, info: SandboxInfo) -> Result<Vec<Arc<Endpoint>>> {
        let node = self.clone();
        run_to_end("annotate", async move { node.annotate_to_end(info).await }).await
    }

    async fn annotate_to_end(&self, info: SandboxInfo) -> Result<Vec<Arc<Endpoint>>> {
        let keys: Vec<EndpointKey> =
            self.state.of_sandbox(&info.id).iter().map(|e| e.key.clone()).collect();
        let mut changed = Vec::new();
        for key in keys {
            changed.extend(self.annotate_one(&key, &info).await?);
        }
        if changed.is_empty() { Err(Error::NoSandbox(info.id)) } else { Ok(changed) }
    }

    async fn annotate_one(
        &self,
        key: &EndpointKey,
        info: &SandboxInfo,
    ) -> Result<Option<Arc<Endpoint>>> {
        let _lock = self.locks.lock(key).await;
        let Some((endpoint, _)) = self.state.endpoint(key) else { return Ok(None) };
        if endpoint.phase != Phase::Attached {
            return Ok(None);
        }
        let mut next = Endpoint::clone(&endpoint);
        next.annotations.clone_from(&info.annotations);
        if let Some(pod) = &info.pod {
            next.labels_of_api &= *pod == next.pod;
            next.pod = pod.clone();
        }
        // Runtimes tell the labels of the time when the sandbox was made.
        if !next.labels_of_api {
            next.labels.clone_from(&info.labels);
        }
        let next = self.state.described(&next);
        if next == *endpoint {
            return Ok(Some(endpoint));
        }
        self.record_change(next).await.map(Some)
    }
}
