//! The service `netd.v1.SandboxService`.

use std::collections::HashSet;

use netd_api::v1::{self, sandbox_service_server::SandboxService};
use tonic::{Request, Response, Status};

use super::{
    Api,
    attach_request::{self, MAX_SOURCE_BYTES},
    transport::peer_cred,
};
use crate::metrics::Verb;
use crate::node::{Error, SandboxInfo};
use netd_domain::{Invalid, SandboxId};

/// Sandboxes of one runtime: more than a node's addresses and processes allow.
const MAX_SANDBOXES: usize = 16_384;

#[tonic::async_trait]
impl SandboxService for Api {
    async fn synchronize(
        &self,
        request: Request<v1::SynchronizeRequest>,
    ) -> Result<Response<v1::SynchronizeResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let mut request = request.into_inner();
            let mut bad = Invalid::new();
            if request.source.is_empty() || request.source.len() > MAX_SOURCE_BYTES {
                bad.add("source", format!("1 to {MAX_SOURCE_BYTES} bytes, e.g. \"nri\""));
            }
            let network = match request.network.as_str() {
                "" => None,
                text => bad.take("network", text.parse()),
            };
            if request.sandboxes.len() > MAX_SANDBOXES {
                let given = request.sandboxes.len();
                bad.add(
                    "sandboxes",
                    format!("{given} of them; a node has at most {MAX_SANDBOXES}"),
                );
                request.sandboxes.clear();
            }
            let mut sandboxes = HashSet::new();
            for (i, sandbox) in request.sandboxes.iter().enumerate() {
                let id = sandbox.id.parse::<SandboxId>();
                sandboxes.extend(bad.take(&format!("sandboxes[{i}].id"), id));
            }
            bad.into_result().map_err(Error::from)?;
            let (source, authoritative) = (request.source, request.authoritative);
            let counts = self.node.synchronize(&source, sandboxes, network, authoritative).await?;
            Ok(Response::new(v1::SynchronizeResponse {
                known: counts.known,
                unknown: counts.unknown,
                removed: counts.removed,
            }))
        };
        self.counted(Verb::Synchronize, span, done).await
    }

    async fn annotate(
        &self,
        request: Request<v1::AnnotateRequest>,
    ) -> Result<Response<v1::AnnotateResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let info = sandbox(request.into_inner().sandbox).map_err(Error::from)?;
            let endpoints = self.node.annotate(info).await?;
            let endpoints = endpoints.iter().map(|e| self.attached(e)).collect();
            Ok(Response::new(v1::AnnotateResponse { endpoints }))
        };
        self.counted(Verb::Annotate, span, done).await
    }
}

/// Checks a sandbox's labels, annotations and identity.
///
/// # Errors
/// All wrong fields.
pub(crate) fn sandbox(wire: Option<v1::Sandbox>) -> Result<SandboxInfo, Invalid> {
    let wire = wire.ok_or_else(|| Invalid::field("sandbox", "missing"))?;
    let mut bad = Invalid::new();
    let id = bad.take("sandbox.id", wire.id.parse::<SandboxId>());
    let pod = wire.pod.map(|pod| attach_request::pod(pod, &mut bad));
    attach_request::texts::check_size(&wire.labels, &wire.annotations, &mut bad);
    bad.into_result()?;
    let id = id.ok_or_else(|| Invalid::field("sandbox.id", "missing"))?;
    Ok(SandboxInfo { id, pod, labels: wire.labels, annotations: wire.annotations })
}
