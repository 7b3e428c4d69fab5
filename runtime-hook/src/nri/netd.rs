//! The calls of netd that the NRI front makes.

use std::{future::Future, path::PathBuf, time::Duration};

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use netd_api::v1::{
    AnnotateRequest, AttachRequest, DetachRequest, Endpoint, ListEndpointsRequest, Sandbox,
    SynchronizeRequest, SynchronizeResponse,
    endpoint_service_client::EndpointServiceClient as Endpoints,
    sandbox_service_client::SandboxServiceClient as Sandboxes,
};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Uri},
};

/// netd, or a fake of it in tests. Every call ends by itself even if its caller stops waiting.
#[async_trait]
pub trait Netd: Send + Sync + 'static {
    /// Attaches a sandbox to a network.
    async fn attach(&self, request: AttachRequest) -> Result<Endpoint, Status>;
    /// Detaches one interface of a sandbox or, if none is named, all; returns how many there
    /// were.
    async fn detach(&self, request: DetachRequest) -> Result<u32, Status>;
    /// Adds labels, annotations and identity to the sandbox's endpoints and returns these;
    /// NOT_FOUND if it has none.
    async fn annotate(&self, sandbox: Sandbox) -> Result<Vec<Endpoint>, Status>;
    /// Sends the runtime's whole set of sandboxes.
    async fn synchronize(&self, request: SynchronizeRequest)
    -> Result<SynchronizeResponse, Status>;
    /// Returns all endpoints of the node.
    async fn endpoints(&self) -> Result<Vec<Endpoint>, Status>;
}

/// Limit of one call, however long its caller waits. netd is on this node.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Endpoints in a page. Each can carry 256 KiB of annotations, and a page must fit
/// [`MAX_RESPONSE_BYTES`].
const PAGE_SIZE: u32 = 200;
const MAX_RESPONSE_BYTES: usize = 64 << 20;

/// netd behind its Unix socket. It connects on first use, and again when the connection breaks.
#[derive(Debug, Clone)]
pub struct UnixNetd {
    channel: Channel,
}

impl UnixNetd {
    /// Does not connect yet. Must be called within a tokio runtime.
    pub fn new(socket: PathBuf) -> Self {
        let connect = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move {
                let stream = UnixStream::connect(&socket).await.map_err(|e| {
                    let path = socket.display();
                    std::io::Error::new(e.kind(), format!("{path}: {e}; is netd running?"))
                })?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // The name only fills the :authority header.
        let endpoint = Channel::builder(Uri::from_static("http://netd.invalid"));
        Self { channel: endpoint.timeout(CALL_TIMEOUT).connect_with_connector_lazy(connect) }
    }

    fn endpoints_client(&self) -> Endpoints<Channel> {
        Endpoints::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }

    fn sandboxes_client(&self) -> Sandboxes<Channel> {
        Sandboxes::new(self.channel.clone()).max_decoding_message_size(MAX_RESPONSE_BYTES)
    }
}

/// Adds to the message why the connection failed, which tonic keeps in the sources of the error.
async fn with_cause<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    call.await.map(tonic::Response::into_inner).map_err(|status| {
        let mut cause = std::error::Error::source(&status);
        let mut root = None;
        while let Some(error) = cause {
            root = Some(error.to_string());
            cause = error.source();
        }
        match root {
            Some(why) if !status.message().contains(&why) => {
                Status::new(status.code(), format!("{}: {why}", status.message()))
            }
            _ => status,
        }
    })
}

#[async_trait]
impl Netd for UnixNetd {
    async fn attach(&self, request: AttachRequest) -> Result<Endpoint, Status> {
        let answer = with_cause(self.endpoints_client().attach(request)).await?;
        answer.endpoint.ok_or_else(|| Status::internal("netd answered Attach without an endpoint"))
    }

    async fn detach(&self, request: DetachRequest) -> Result<u32, Status> {
        Ok(with_cause(self.endpoints_client().detach(request)).await?.removed)
    }

    async fn annotate(&self, sandbox: Sandbox) -> Result<Vec<Endpoint>, Status> {
        let request = AnnotateRequest { sandbox: Some(sandbox) };
        Ok(with_cause(self.sandboxes_client().annotate(request)).await?.endpoints)
    }

    async fn synchronize(
        &self,
        request: SynchronizeRequest,
    ) -> Result<SynchronizeResponse, Status> {
        with_cause(self.sandboxes_client().synchronize(request)).await
    }

    async fn endpoints(&self) -> Result<Vec<Endpoint>, Status> {
        let mut client = self.endpoints_client();
        let mut request = ListEndpointsRequest { page_size: PAGE_SIZE, ..Default::default() };
        let mut all = Vec::new();
        loop {
            let page = with_cause(client.list_endpoints(request.clone())).await?;
            all.extend(page.endpoints);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            if page.next_page_token == request.page_token {
                return Err(Status::internal("netd answered the same page of endpoints twice"));
            }
            request.page_token = page.next_page_token;
        }
    }
}
