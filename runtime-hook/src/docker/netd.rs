//! netd as the Docker front needs it.

use std::{future::Future, path::Path, time::Duration};

use netd_api::v1::{
    CreateEndpointRequest, CreateNetworkRequest, DeleteNetworkRequest, DetachRequest, Endpoint,
    GetEndpointRequest, GetNetworkRequest, JoinRequest, LeaveRequest, ListNetworksRequest, Network,
    NetworkStatus, PublishRequest, ReleaseAddressRequest, ReserveAddressRequest,
    endpoint_service_client::EndpointServiceClient as Endpoints,
    network_service_client::NetworkServiceClient as Networks,
};
use tokio::time::{Instant, sleep};

use super::offers::Offers;
use crate::{client::Client, error::HookError, refusal::Code};

/// Longest time for one try of a call.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long calls wait for a netd that is being restarted. dockerd itself gives a plugin
/// 30 s.
const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// Beginning of the `source` of what Docker's endpoints are attached by.
pub const SOURCE: &str = "docker/";

/// netd behind its Unix socket. Every call can be repeated, and is when its connection
/// breaks: an address that was reserved twice is collected by netd.
pub struct Netd {
    client: Client,
    /// Pools that dockerd may be about to refuse.
    pub(super) offers: Offers,
}

type Result<T> = std::result::Result<T, HookError>;

impl Netd {
    /// Connects with the first call.
    pub fn new(socket: &Path) -> Self {
        Self { client: Client::lazy(socket, DEADLINE), offers: Offers::default() }
    }

    async fn patiently<T, F>(&self, call: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = Instant::now() + PATIENCE;
        loop {
            match call().await {
                Err(HookError::Unreachable { .. } | HookError::Lost { .. })
                    if Instant::now() < end => {}
                other => return other,
            }
            sleep(PAUSE).await;
        }
    }

    pub(super) async fn create_network(&self, network: Network) -> Result<()> {
        let call = || {
            let request = CreateNetworkRequest { network: Some(network.clone()) };
            self.client.call("CreateNetwork", request, |link, r| async move {
                Networks::new(link).create_network(r).await
            })
        };
        self.patiently(call).await.map(drop)
    }

    pub(super) async fn network(&self, name: &str) -> Result<Network> {
        let call = || {
            let request = GetNetworkRequest { name: name.to_owned() };
            self.client.call("GetNetwork", request, |link, r| async move {
                Networks::new(link).get_network(r).await
            })
        };
        let answer = self.patiently(call).await?;
        let network = answer.network.and_then(|status| status.network);
        network.ok_or_else(|| HookError::BadAnswer("GetNetwork: no network".into()))
    }

    pub(super) async fn networks(&self) -> Result<Vec<NetworkStatus>> {
        let call = || {
            self.client.call("ListNetworks", ListNetworksRequest {}, |link, r| async move {
                Networks::new(link).list_networks(r).await
            })
        };
        Ok(self.patiently(call).await?.networks)
    }

    pub(super) async fn delete_network(&self, name: &str) -> Result<()> {
        let call = || {
            let request = DeleteNetworkRequest { name: name.to_owned() };
            self.client.call("DeleteNetwork", request, |link, r| async move {
                Networks::new(link).delete_network(r).await
            })
        };
        self.patiently(call).await.map(drop)
    }

    pub(super) async fn reserve(&self, request: ReserveAddressRequest) -> Result<String> {
        let call = || {
            self.client.call("ReserveAddress", request.clone(), |link, r| async move {
                Networks::new(link).reserve_address(r).await
            })
        };
        Ok(self.patiently(call).await?.address)
    }

    pub(super) async fn release(&self, address: String) -> Result<()> {
        let call = || {
            let request = ReleaseAddressRequest { address: address.clone() };
            self.client.call("ReleaseAddress", request, |link, r| async move {
                Networks::new(link).release_address(r).await
            })
        };
        self.patiently(call).await.map(drop)
    }

    pub(super) async fn create_endpoint(&self, request: CreateEndpointRequest) -> Result<Endpoint> {
        let call = || {
            self.client.call("CreateEndpoint", request.clone(), |link, r| async move {
                Endpoints::new(link).create_endpoint(r).await
            })
        };
        some(self.patiently(call).await?.endpoint, "CreateEndpoint")
    }

    pub(super) async fn join(&self, request: JoinRequest) -> Result<Endpoint> {
        let call = || {
            self.client.call("Join", request.clone(), |link, r| async move {
                Endpoints::new(link).join(r).await
            })
        };
        some(self.patiently(call).await?.endpoint, "Join")
    }

    pub(super) async fn leave(&self, endpoint_id: &str) -> Result<()> {
        let call = || {
            let request = LeaveRequest { endpoint_id: endpoint_id.to_owned() };
            self.client.call("Leave", request, |link, r| async move {
                Endpoints::new(link).leave(r).await
            })
        };
        self.patiently(call).await.map(drop)
    }

    pub(super) async fn publish(&self, request: PublishRequest) -> Result<()> {
        let call = || {
            self.client.call("Publish", request.clone(), |link, r| async move {
                Endpoints::new(link).publish(r).await
            })
        };
        self.patiently(call).await.map(drop)
    }

    pub(super) async fn detach(&self, endpoint: &Endpoint) -> Result<()> {
        let call = || {
            self.client.detach(DetachRequest {
                sandbox_id: endpoint.sandbox_id.clone(),
                interface: endpoint.interface.clone(),
                issued_at: 0,
            })
        };
        self.patiently(call).await.map(drop)
    }

    /// One of Docker's endpoints; `None`: there is none. One of somebody else's is none of
    /// dockerd's business.
    pub(super) async fn endpoint(&self, endpoint_id: &str) -> Result<Option<Endpoint>> {
        let call = || {
            let request =
                GetEndpointRequest { sandbox_id: endpoint_id.to_owned(), ..Default::default() };
            self.client.call("GetEndpoint", request, |link, r| async move {
                Endpoints::new(link).get_endpoint(r).await
            })
        };
        match self.patiently(call).await {
            Ok(answer) => Ok(answer.endpoint.filter(|e| e.source.starts_with(SOURCE))),
            Err(HookError::Refused(refusal)) if refusal.code == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn some(endpoint: Option<Endpoint>, operation: &str) -> Result<Endpoint> {
    endpoint.ok_or_else(|| HookError::BadAnswer(format!("{operation}: no endpoint")))
}
