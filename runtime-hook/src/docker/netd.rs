//! The calls of netd that the Docker front makes.

use std::{future::Future, path::Path, time::Duration};

use netd_api::v1::{
    CreateEndpointRequest, CreateNetworkRequest, DeleteNetworkRequest, DetachRequest, Endpoint,
    GetEndpointRequest, GetNetworkRequest, JoinRequest, LeaveRequest, ListNetworksRequest,
    ListNetworksResponse, Network, NetworkStatus, PublishRequest, ReleaseAddressRequest,
    ReserveAddressRequest, endpoint_service_client::EndpointServiceClient as Endpoints,
    network_service_client::NetworkServiceClient as Networks,
};
use tokio::time::{Instant, sleep};

use super::pool_backoff::PoolBackoff;
use crate::{client::UnixClient, error::HookError, status::Code};

/// Limit of one attempt at a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a call waits for a netd that is restarting. dockerd itself gives a plugin 30 s.
const RESTART_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two attempts. netd listens again within milliseconds of its start.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// The `source` of Docker's endpoints is this, a slash and the id of the Docker network.
pub(super) const SOURCE: &str = "docker";

/// netd behind its Unix socket. Every call is idempotent, and is repeated when its connection
/// breaks; netd's garbage collection frees an address that was reserved twice.
pub struct NetdClient {
    client: UnixClient,
    /// Pools that dockerd may be about to reject.
    pub(super) pool_backoff: PoolBackoff,
}

type Result<T> = std::result::Result<T, HookError>;

impl NetdClient {
    /// Connects to netd's socket with the first call.
    pub fn new(socket: &Path) -> Self {
        Self {
            client: UnixClient::lazy(socket, CALL_TIMEOUT),
            pool_backoff: PoolBackoff::default(),
        }
    }

    async fn retry_while_restarting<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = Instant::now() + RESTART_TIMEOUT;
        loop {
            match call().await {
                Err(HookError::Unreachable { .. } | HookError::Lost { .. })
                    if Instant::now() < end => {}
                other => return other,
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    pub(super) async fn create_network(&self, network: Network) -> Result<()> {
        let call = || {
            let request = CreateNetworkRequest { network: Some(network.clone()), force: false };
            self.client.call("CreateNetwork", request, |netd, request| async move {
                Networks::new(netd).create_network(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    pub(super) async fn network(&self, name: &str) -> Result<Network> {
        let call = || {
            let request = GetNetworkRequest { name: name.to_owned() };
            self.client.call("GetNetwork", request, |netd, request| async move {
                Networks::new(netd).get_network(request).await
            })
        };
        let answer = self.retry_while_restarting(call).await?;
        let network = answer.network.and_then(|status| status.network);
        network.ok_or_else(|| HookError::BadAnswer("GetNetwork answered no network".into()))
    }

    /// All networks, and the networks that the host itself is in or leads to.
    pub(super) async fn networks_and_hosts(&self) -> Result<ListNetworksResponse> {
        let call = || {
            self.client.call("ListNetworks", ListNetworksRequest {}, |netd, request| async move {
                Networks::new(netd).list_networks(request).await
            })
        };
        self.retry_while_restarting(call).await
    }

    pub(super) async fn networks(&self) -> Result<Vec<NetworkStatus>> {
        Ok(self.networks_and_hosts().await?.networks)
    }

    pub(super) async fn delete_network(&self, name: &str) -> Result<()> {
        let call = || {
            let request = DeleteNetworkRequest { name: name.to_owned() };
            self.client.call("DeleteNetwork", request, |netd, request| async move {
                Networks::new(netd).delete_network(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    pub(super) async fn reserve(&self, request: ReserveAddressRequest) -> Result<String> {
        let call = || {
            self.client.call("ReserveAddress", request.clone(), |netd, request| async move {
                Networks::new(netd).reserve_address(request).await
            })
        };
        Ok(self.retry_while_restarting(call).await?.address)
    }

    pub(super) async fn release(&self, address: String) -> Result<()> {
        let call = || {
            let request = ReleaseAddressRequest { address: address.clone() };
            self.client.call("ReleaseAddress", request, |netd, request| async move {
                Networks::new(netd).release_address(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    pub(super) async fn create_endpoint(&self, request: CreateEndpointRequest) -> Result<Endpoint> {
        let call = || {
            self.client.call("CreateEndpoint", request.clone(), |netd, request| async move {
                Endpoints::new(netd).create_endpoint(request).await
            })
        };
        required(self.retry_while_restarting(call).await?.endpoint, "CreateEndpoint")
    }

    pub(super) async fn join(&self, request: JoinRequest) -> Result<Endpoint> {
        let call = || {
            self.client.call("Join", request.clone(), |netd, request| async move {
                Endpoints::new(netd).join(request).await
            })
        };
        required(self.retry_while_restarting(call).await?.endpoint, "Join")
    }

    /// Succeeds if Docker has created no such endpoint.
    pub(super) async fn leave(&self, endpoint_id: &str) -> Result<()> {
        let call = || {
            let request =
                LeaveRequest { endpoint_id: endpoint_id.to_owned(), source: SOURCE.to_owned() };
            self.client.call("Leave", request, |netd, request| async move {
                Endpoints::new(netd).leave(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    pub(super) async fn publish(&self, request: PublishRequest) -> Result<()> {
        let call = || {
            self.client.call("Publish", request.clone(), |netd, request| async move {
                Endpoints::new(netd).publish(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    /// Removes an endpoint. Succeeds if Docker has created no such endpoint.
    pub(super) async fn delete_endpoint(&self, endpoint_id: &str) -> Result<()> {
        let call = || {
            let request = DetachRequest {
                sandbox_id: endpoint_id.to_owned(),
                source: SOURCE.to_owned(),
                ..DetachRequest::default()
            };
            self.client.call("Detach", request, |netd, request| async move {
                Endpoints::new(netd).detach(request).await
            })
        };
        self.retry_while_restarting(call).await.map(drop)
    }

    /// The endpoint with this id, if Docker created it.
    pub(super) async fn endpoint(&self, endpoint_id: &str) -> Result<Option<Endpoint>> {
        let call = || {
            let request =
                GetEndpointRequest { sandbox_id: endpoint_id.to_owned(), ..Default::default() };
            self.client.call("GetEndpoint", request, |netd, request| async move {
                Endpoints::new(netd).get_endpoint(request).await
            })
        };
        match self.retry_while_restarting(call).await {
            Ok(answer) => Ok(answer.endpoint.filter(|e| is_of_docker(&e.source))),
            Err(HookError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn is_of_docker(source: &str) -> bool {
    source.strip_prefix(SOURCE).is_some_and(|rest| rest.starts_with('/'))
}

fn required(endpoint: Option<Endpoint>, operation: &str) -> Result<Endpoint> {
    endpoint.ok_or_else(|| HookError::BadAnswer(format!("{operation} answered no endpoint")))
}
