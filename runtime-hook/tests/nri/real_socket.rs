//! The front with its real gRPC client, against a tonic server on a Unix socket.

use std::{path::Path, time::Duration};

use netd_api::v1::{
    AnnotateRequest, AnnotateResponse, AttachRequest, AttachResponse, CheckRequest, CheckResponse,
    DetachRequest, DetachResponse, Endpoint, GetEndpointRequest, GetEndpointResponse,
    ListEndpointsRequest, ListEndpointsResponse, SynchronizeRequest, SynchronizeResponse,
    WatchEndpointsRequest, WatchEndpointsResponse,
    endpoint_service_server::{EndpointService, EndpointServiceServer},
    sandbox_service_server::{SandboxService, SandboxServiceServer},
};
use runtime_hook::nri::{
    self, Options,
    netd::{Netd as _, UnixNetd},
};
use tokio::{
    net::UnixListener,
    runtime::{Builder, Runtime},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::{
    Front,
    containerd::{Listener, REMOVE, RUN, STOP, Style, pod},
    netd::FakeNetd,
};

struct Service(FakeNetd);
type GrpcResult<T> = Result<Response<T>, Status>;

fn not_used<T>() -> GrpcResult<T> {
    Err(Status::unimplemented("the NRI front does not call this"))
}

#[tonic::async_trait]
impl EndpointService for Service {
    type WatchEndpointsStream = tokio_stream::Empty<Result<WatchEndpointsResponse, Status>>;

    async fn create_endpoint(
        &self,
        _: Request<netd_api::v1::CreateEndpointRequest>,
    ) -> Result<Response<netd_api::v1::CreateEndpointResponse>, Status> {
        Err(Status::unimplemented("create_endpoint"))
    }

    async fn join(
        &self,
        _: Request<netd_api::v1::JoinRequest>,
    ) -> Result<Response<netd_api::v1::JoinResponse>, Status> {
        Err(Status::unimplemented("join"))
    }

    async fn leave(
        &self,
        _: Request<netd_api::v1::LeaveRequest>,
    ) -> Result<Response<netd_api::v1::LeaveResponse>, Status> {
        Err(Status::unimplemented("leave"))
    }

    async fn publish(
        &self,
        _: Request<netd_api::v1::PublishRequest>,
    ) -> Result<Response<netd_api::v1::PublishResponse>, Status> {
        Err(Status::unimplemented("publish"))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> GrpcResult<AttachResponse> {
        let endpoint = Some(self.0.attach(request.into_inner()).await?);
        Ok(Response::new(AttachResponse { endpoint }))
    }
    async fn detach(&self, request: Request<DetachRequest>) -> GrpcResult<DetachResponse> {
        let removed = self.0.detach(request.into_inner()).await?;
        Ok(Response::new(DetachResponse { removed }))
    }
    /// Two endpoints a page, whatever was asked for.
    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> GrpcResult<ListEndpointsResponse> {
        let from: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let all: Vec<Endpoint> = self.0.endpoints().await?;
        let next = if from + 2 < all.len() { (from + 2).to_string() } else { String::new() };
        let endpoints = all.into_iter().skip(from).take(2).collect();
        Ok(Response::new(ListEndpointsResponse { endpoints, next_page_token: next, revision: 1 }))
    }
    async fn check(&self, _: Request<CheckRequest>) -> GrpcResult<CheckResponse> {
        not_used()
    }
    async fn get_endpoint(
        &self,
        _: Request<GetEndpointRequest>,
    ) -> GrpcResult<GetEndpointResponse> {
        not_used()
    }
    async fn watch_endpoints(
        &self,
        _: Request<WatchEndpointsRequest>,
    ) -> GrpcResult<Self::WatchEndpointsStream> {
        not_used()
    }
}

#[tonic::async_trait]
impl SandboxService for Service {
    async fn synchronize(
        &self,
        request: Request<SynchronizeRequest>,
    ) -> GrpcResult<SynchronizeResponse> {
        Ok(Response::new(self.0.synchronize(request.into_inner()).await?))
    }
    async fn annotate(&self, request: Request<AnnotateRequest>) -> GrpcResult<AnnotateResponse> {
        let sandbox = request.into_inner().sandbox.unwrap_or_default();
        let endpoints = self.0.annotate(sandbox).await?;
        Ok(Response::new(AnnotateResponse { endpoints }))
    }
}

/// A netd in a runtime of its own: with that its connections end too.
struct Server(Option<Runtime>);

impl Server {
    fn start(netd: &FakeNetd, socket: &Path) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inside = runtime.enter();
        let listener = UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(EndpointServiceServer::new(Service(netd.clone())))
            .add_service(SandboxServiceServer::new(Service(netd.clone())))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(async move { server.await.unwrap() });
        drop(inside);
        Self(Some(runtime))
    }

    async fn stop(mut self, socket: &Path) {
        let runtime = self.0.take().unwrap();
        let stop = move || runtime.shutdown_timeout(Duration::from_secs(5));
        tokio::task::spawn_blocking(stop).await.unwrap();
        std::fs::remove_file(socket).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

#[tokio::test]
async fn a_pod_lives_and_dies_over_real_sockets_and_a_restart_of_netd() {
    let (listener, netd) = (Listener::new(), FakeNetd::default());
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("netd.sock");
    let options = Options {
        socket: listener.path.clone(),
        netd_socket: socket.clone(),
        ..Options::default()
    };
    let server = Server::start(&netd, &socket);
    let _front = Front(tokio::spawn(nri::run(options)));
    let mut peer = listener.ready().await;
    netd.has("s1", "eth0");
    let web = pod("s1", &[("netd.io/networks", "blue,red")]);
    peer.event(Style::Calls, RUN, &web).await.unwrap();
    assert_eq!(netd.interfaces("s1"), ["eth0", "eth1", "eth2"]);

    server.stop(&socket).await;
    let status = peer.event(Style::Calls, RUN, &web).await.unwrap_err();
    assert_eq!(status.code, 14, "{}", status.message);
    let path = socket.to_str().unwrap();
    let said = |word| assert!(status.message.contains(word), "{word}: {}", status.message);
    ["is netd running?", path, "s1"].into_iter().for_each(said);

    let _server = Server::start(&netd, &socket);
    peer.event(Style::Calls, STOP, &web).await.unwrap();
    assert_eq!(netd.interfaces("s1"), ["eth0"]);
    peer.event(Style::Calls, REMOVE, &web).await.unwrap();
    assert_eq!(netd.interfaces("s1"), Vec::<String>::new());
}

#[tokio::test]
async fn every_page_of_endpoints_is_read() {
    let netd = FakeNetd::default();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("netd.sock");
    let _server = Server::start(&netd, &socket);
    (0..5).for_each(|i| netd.has(&format!("s{i}"), "eth0"));
    let all = UnixNetd::new(socket).endpoints().await.unwrap();
    let ids: Vec<_> = all.iter().map(|e| e.sandbox_id.as_str()).collect();
    assert_eq!(ids, ["s0", "s1", "s2", "s3", "s4"]);
}
