//! A netd that says what a test wants, over gRPC: for the fronts that run as services.
#![allow(dead_code, clippy::unwrap_used)]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

use netd_api::v1::{
    endpoint_service_server::{EndpointService, EndpointServiceServer},
    node_service_server::{NodeService, NodeServiceServer},
    sandbox_service_server::{SandboxService, SandboxServiceServer},
    *,
};
use tokio::{net::UnixListener, sync::oneshot};
use tokio_stream::{Stream, wrappers::UnixListenerStream};
use tonic::{Code, Request, Response, Status, async_trait};
use tonic_types::{ErrorDetails, StatusExt as _};

#[path = "script.rs"]
mod script;

pub(crate) use script::{Asked, Script};

#[derive(Clone)]
struct Fake {
    script: Script,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    async fn note(&self, asked: Asked) -> Result<(), Status> {
        let count = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked);
            all.len()
        };
        if self.script.hang {
            std::future::pending::<()>().await;
        }
        self.script.verdict(count)
    }
}

/// netd's refusal of a busy port, with a message that names nothing.
fn host_port_taken(port: u32) -> Status {
    let pairs = [("host_port", port.to_string()), ("protocol", "tcp".to_owned())];
    let metadata: HashMap<_, _> = pairs.map(|(k, v)| (k.to_owned(), v)).into();
    let details = ErrorDetails::with_error_info("HOST_PORT_TAKEN", "netd", metadata);
    Status::with_error_details(Code::AlreadyExists, "it is taken", details)
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl EndpointService for Fake {
    type WatchEndpointsStream = Events<WatchEndpointsResponse>;

    async fn create_endpoint(
        &self,
        _: Request<netd_api::v1::CreateEndpointRequest>,
    ) -> Result<Response<netd_api::v1::CreateEndpointResponse>, Status> {
        Err(Status::unimplemented("create_endpoint"))
    }

    async fn join(&self, r: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let r = r.into_inner();
        self.note(Asked::Join(r.clone())).await?;
        let endpoint = self.script.endpoint(&r.endpoint_id, "eth0", None);
        Ok(Response::new(JoinResponse { endpoint }))
    }

    async fn leave(&self, r: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        self.note(Asked::Leave(r.into_inner())).await?;
        Ok(Response::new(LeaveResponse {}))
    }

    async fn publish(
        &self,
        r: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let r = r.into_inner();
        self.note(Asked::Publish(r.clone())).await?;
        let busy = |p: &&PortMapping| self.script.busy_ports.contains(&p.host_port);
        match r.port_mappings.iter().find(busy) {
            Some(mapping) => Err(host_port_taken(mapping.host_port)),
            None => Ok(Response::new(PublishResponse { endpoint: None })),
        }
    }

    async fn attach(&self, r: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let r = r.into_inner();
        self.note(Asked::Attach(r.clone())).await?;
        let endpoint = self.script.endpoint(&r.sandbox_id, &r.interface, r.dns);
        Ok(Response::new(AttachResponse { endpoint }))
    }
    async fn detach(&self, r: Request<DetachRequest>) -> Result<Response<DetachResponse>, Status> {
        self.note(Asked::Detach(r.into_inner())).await?;
        Ok(Response::new(DetachResponse { removed: 1 }))
    }
    async fn check(&self, r: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let r = r.into_inner();
        self.note(Asked::Check(r.clone())).await?;
        let endpoint = self.script.endpoint(&r.sandbox_id, &r.interface, None);
        Ok(Response::new(CheckResponse { endpoint }))
    }
    async fn get_endpoint(
        &self,
        _: Request<GetEndpointRequest>,
    ) -> Result<Response<GetEndpointResponse>, Status> {
        Err(Status::unimplemented("the hook never asks"))
    }
    async fn list_endpoints(
        &self,
        _: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        Err(Status::unimplemented("the hook never asks"))
    }
    async fn watch_endpoints(
        &self,
        _: Request<WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        Err(Status::unimplemented("the hook never asks"))
    }
}

#[async_trait]
impl SandboxService for Fake {
    async fn synchronize(
        &self,
        r: Request<SynchronizeRequest>,
    ) -> Result<Response<SynchronizeResponse>, Status> {
        self.note(Asked::Synchronize(r.into_inner())).await?;
        Ok(Response::new(SynchronizeResponse::default()))
    }
    async fn annotate(
        &self,
        r: Request<AnnotateRequest>,
    ) -> Result<Response<AnnotateResponse>, Status> {
        self.note(Asked::Annotate(r.into_inner())).await?;
        Ok(Response::new(AnnotateResponse::default()))
    }
}

#[async_trait]
impl NodeService for Fake {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.note(Asked::Status(request.into_inner())).await?;
        let component = Component {
            name: "store".into(),
            ready: !self.script.starting,
            reason: "the disk is full".into(),
            since: 0,
        };
        Ok(Response::new(GetStatusResponse {
            ready: !self.script.starting,
            components: vec![component],
            ..GetStatusResponse::default()
        }))
    }
}

/// A fake netd on a socket of its own; ends when dropped.
pub(crate) struct Netd {
    pub dir: tempfile::TempDir,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Netd {
    pub(crate) fn start(script: Script) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let fake = Fake { script, asked: asked.clone() };
        let (stop, stopped) = oneshot::channel();
        let (up, is_up) = mpsc::channel();
        let socket = dir.path().join("netd.sock");
        let thread = std::thread::spawn(move || serve(fake, &socket, stopped, &up));
        is_up.recv().unwrap();
        Self { dir, asked, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn ready() -> Self {
        Self::start(Script::default())
    }

    pub(crate) fn refusing(status: Status) -> Self {
        Self::start(Script { refuse: Some(status), ..Script::default() })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("netd.sock")
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Netd {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(fake: Fake, socket: &Path, stopped: oneshot::Receiver<()>, up: &mpsc::Sender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).unwrap();
        up.send(()).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(EndpointServiceServer::new(fake.clone()))
            .add_service(SandboxServiceServer::new(fake.clone()))
            .add_service(NodeServiceServer::new(fake))
            .serve_with_incoming(UnixListenerStream::new(listener));
        // Not gracefully: calls that hang must not hold the test up.
        tokio::select! { served = server => served.unwrap(), _ = stopped => {} }
    });
}
