//! The service `netd.v1.EndpointService`.

use netd_api::v1::{self, endpoint_service_server::EndpointService};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    Api,
    attach_request::{self, attach, endpoint_key, network_name},
    convert, hook,
    transport::peer_cred,
    watch::{self, Change, Outgoing},
};
use crate::metrics::{Verb, code_name};
use crate::node::{EndpointFilter, EndpointRef, Error, KernelStatus, SandboxNetns, now_boot};
use netd_domain::{AttachSpec, Endpoint, EndpointKey, IfName, Invalid, SandboxId};
use netd_store::keys;

const DEFAULT_PAGE_SIZE: usize = 500;
const MAX_PAGE_SIZE: usize = 5000;

#[tonic::async_trait]
impl EndpointService for Api {
    async fn attach(
        &self,
        mut request: Request<v1::AttachRequest>,
    ) -> Result<Response<v1::AttachResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let descriptor = hook::take_descriptor(&mut request);
            let spec = attach(request.into_inner()).map_err(Error::from)?;
            let endpoint = self.node.attach_in(spec, descriptor).await?;
            let endpoint = Some(self.attached(&endpoint));
            Ok(Response::new(v1::AttachResponse { endpoint }))
        };
        self.counted(Verb::Attach, span, done).await
    }

    async fn detach(
        &self,
        request: Request<v1::DetachRequest>,
    ) -> Result<Response<v1::DetachResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let mut bad = Invalid::new();
            let sandbox = bad.take("sandbox_id", request.sandbox_id.parse::<SandboxId>());
            let ifname = match request.interface.as_str() {
                "" => None,
                text => bad.take("interface", text.parse::<IfName>()),
            };
            let now = now_boot();
            if request.issued_at > now {
                let text =
                    format!("{} is in the future (CLOCK_BOOTTIME is {now} ns)", request.issued_at);
                bad.add("issued_at", text);
            }
            bad.into_result().map_err(Error::from)?;
            let issued_at = if request.issued_at == 0 { now } else { request.issued_at };
            let sandbox = sandbox.ok_or_else(|| Status::internal("sandbox id"))?;
            let removed = match request.source {
                source if source.is_empty() => self.node.detach(sandbox, ifname, issued_at).await?,
                source => self.node.detach_of_source(sandbox, ifname, issued_at, source).await?,
            };
            Ok(Response::new(v1::DetachResponse { removed }))
        };
        self.counted(Verb::Detach, span, done).await
    }

    async fn check(
        &self,
        mut request: Request<v1::CheckRequest>,
    ) -> Result<Response<v1::CheckResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let descriptor = hook::take_descriptor(&mut request);
            let request = request.into_inner();
            let key = key(&request.sandbox_id, &request.interface)?;
            let network = match request.network.as_str() {
                "" => None,
                name => Some(
                    network_name(name).map_err(|e| Error::from(Invalid::field("network", e)))?,
                ),
            };
            let asked = descriptor.is_some() || !request.netns_path.is_empty();
            let netns = SandboxNetns { path: request.netns_path.into(), descriptor };
            let endpoint = self.node.check(&key, asked.then_some(netns), network.as_ref()).await?;
            let endpoint = Some(self.attached(&endpoint));
            Ok(Response::new(v1::CheckResponse { endpoint }))
        };
        self.counted(Verb::Check, span, done).await
    }

    async fn create_endpoint(
        &self,
        request: Request<v1::CreateEndpointRequest>,
    ) -> Result<Response<v1::CreateEndpointResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let endpoint = self.node.create_endpoint(self.new_endpoint(request.into_inner())?);
            let endpoint = Some(self.attached(&*endpoint.await?));
            Ok(Response::new(v1::CreateEndpointResponse { endpoint }))
        };
        self.counted(Verb::CreateEndpoint, span, done).await
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let mut bad = Invalid::new();
            let key = endpoint_key(&request.endpoint_id, "", &mut bad);
            let path = bad.take("netns_path", attach_request::netns_path(&request.netns_path));
            bad.into_result().map_err(Error::from)?;
            let (key, path) = key.zip(path).ok_or_else(|| Error::Internal("join".into()))?;
            let wanted = endpoint_ref(key, request.source);
            let endpoint = self.node.join(wanted, path).await?;
            let endpoint = Some(self.attached(&endpoint));
            Ok(Response::new(v1::JoinResponse { endpoint }))
        };
        self.counted(Verb::Join, span, done).await
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let key = key(&request.endpoint_id, "")?;
            self.node.leave(endpoint_ref(key, request.source)).await?;
            Ok(Response::new(v1::LeaveResponse {}))
        };
        self.counted(Verb::Leave, span, done).await
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let mut bad = Invalid::new();
            let key = endpoint_key(&request.endpoint_id, "", &mut bad);
            let ports = attach_request::port_mappings(&request.port_mappings, &mut bad);
            bad.into_result().map_err(Error::from)?;
            let key = key.ok_or_else(|| Error::Internal("endpoint key".into()))?;
            let wanted = endpoint_ref(key, request.source);
            let endpoint = self.node.publish(wanted, ports, request.leads_out).await?;
            let endpoint = Some(self.attached(&endpoint));
            Ok(Response::new(v1::PublishResponse { endpoint }))
        };
        self.counted(Verb::Publish, span, done).await
    }

    async fn get_endpoint(
        &self,
        request: Request<v1::GetEndpointRequest>,
    ) -> Result<Response<v1::GetEndpointResponse>, Status> {
        let request = request.into_inner();
        let key = key(&request.sandbox_id, &request.interface)?;
        let (endpoint, work) = self.node.endpoint(&key)?;
        let mut message = self.message(&endpoint, Some(&work));
        message.host_port_conflicts = self.node.host_port_conflicts(&endpoint).await;
        message.changes_inside = self.node.changes_inside(&endpoint).await;
        Ok(Response::new(v1::GetEndpointResponse { endpoint: Some(message) }))
    }

    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Result<Response<v1::ListEndpointsResponse>, Status> {
        let request = request.into_inner();
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(page_token(token).ok_or_else(|| {
                Error::from(Invalid::field("page_token", "is not one that netd gave out"))
            })?),
        };
        let size = match request.page_size as usize {
            0 => DEFAULT_PAGE_SIZE,
            n => n.min(MAX_PAGE_SIZE),
        };
        let filter = EndpointFilter {
            network: request.network,
            sandbox: request.sandbox_id,
            pod_namespace: request.pod_namespace,
            pod_name: request.pod_name,
        };
        let page = self.node.page(after.as_ref(), size, &filter).await?;
        let endpoints = page.endpoints.iter().map(|(e, work)| self.message(e, work.as_ref()));
        Ok(Response::new(v1::ListEndpointsResponse {
            endpoints: endpoints.collect(),
            next_page_token: page.next.map(|key| key.to_string()).unwrap_or_default(),
            revision: page.revision,
        }))
    }

    type WatchEndpointsStream = Outgoing<v1::WatchEndpointsResponse>;

    async fn watch_endpoints(
        &self,
        request: Request<v1::WatchEndpointsRequest>,
    ) -> Result<Response<Self::WatchEndpointsStream>, Status> {
        let after = request.into_inner().after_revision;
        let node = self.node.clone();
        let message = move |change: Change<Endpoint>| {
            let mac = |bridge: &IfName| node.bridge_mac(bridge);
            let endpoint = match change.record {
                Some(record) => Some(convert::endpoint(&record, None, mac)),
                None => removed(&change.key),
            };
            let (r#type, revision) = (change.kind.into(), change.revision);
            Some(v1::WatchEndpointsResponse { r#type, revision, endpoint })
        };
        let source = self.watched(keys::ENDPOINTS);
        Ok(Response::new(watch::records(source, after, message)))
    }
}

impl Api {
    /// The answer about an endpoint that is attached.
    pub(super) fn attached(&self, endpoint: &Endpoint) -> v1::Endpoint {
        self.message(endpoint, Some(&KernelStatus::Attached))
    }

    /// An endpoint of this node; `work` as in [`convert::endpoint`].
    fn message(&self, endpoint: &Endpoint, work: Option<&KernelStatus>) -> v1::Endpoint {
        convert::endpoint(endpoint, work, |bridge| self.node.bridge_mac(bridge))
    }

    /// An attach without a sandbox, in the named network or the one that has the address.
    fn new_endpoint(&self, request: v1::CreateEndpointRequest) -> Result<AttachSpec, Error> {
        let named = Some(request.network.clone()).filter(|name| !name.is_empty());
        let network = named.or_else(|| {
            let text = request.addresses.first()?;
            let net = text.parse::<ipnet::IpNet>().map(|net| net.addr());
            let ip = text.parse::<std::net::IpAddr>().or(net).ok()?;
            Some(self.node.network_of(ip)?.to_string())
        });
        let Some(network) = network else {
            let text = "is empty, and the address is of no network; `netd network list`";
            return Err(Invalid::field("network", text).into());
        };
        let network = network_name(&network).map_err(|e| Invalid::field("network", e))?;
        attach_request::create(request, network).map_err(Into::into)
    }

    /// Runs an operation within `span`, which names the caller in the log, and counts it by
    /// its gRPC code.
    pub(super) async fn counted<T>(
        &self,
        verb: Verb,
        span: tracing::Span,
        work: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let result = work.instrument(span.clone()).await;
        let code = result.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.node.metrics().operation(verb, code);
        if let Err(status) = &result {
            let (operation, code) = (verb.name(), code_name(code));
            span.in_scope(|| tracing::info!(operation, code, error = status.message(), "refused"));
        }
        result
    }
}

fn key(sandbox: &str, ifname: &str) -> Result<EndpointKey, Error> {
    let mut bad = Invalid::new();
    let key = endpoint_key(sandbox, ifname, &mut bad);
    bad.into_result()?;
    key.ok_or_else(|| Error::Internal("endpoint key".into()))
}

fn endpoint_ref(key: EndpointKey, source: String) -> EndpointRef {
    EndpointRef { key, source: Some(source).filter(|source| !source.is_empty()) }
}

fn page_token(token: &str) -> Option<EndpointKey> {
    let (sandbox, ifname) = token.split_once('/')?;
    Some(EndpointKey { sandbox: sandbox.parse().ok()?, ifname: ifname.parse().ok()? })
}

/// An endpoint whose record was removed: only its key is known.
fn removed(key: &str) -> Option<v1::Endpoint> {
    let key = keys::endpoint_of(key)?;
    Some(v1::Endpoint {
        sandbox_id: key.sandbox.to_string(),
        interface: key.ifname.to_string(),
        ..Default::default()
    })
}
