//! Single gRPC calls, with the status as it came.

use std::time::Duration;

use anyhow::Result;
use netd_api::v1::{
    self, AnnotateRequest, AttachRequest, CheckRequest, CreateNetworkRequest, DeleteNetworkRequest,
    DetachRequest, Endpoint, Network, NetworkStatus, SynchronizeRequest, SynchronizeResponse,
};
use tonic::{Request, Status};

use super::Daemon;
use crate::block_on;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn within<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn no_client(error: anyhow::Error) -> Status {
    Status::unknown(format!("no client: {error:#}"))
}

impl Daemon {
    /// EndpointService.Attach.
    pub fn attach(&self, request: AttachRequest) -> Result<Endpoint, Status> {
        let mut service = self.endpoint_service().map_err(no_client)?;
        let answer = block_on(service.attach(within(request)))?.into_inner();
        answer.endpoint.ok_or_else(|| Status::unknown("answered without an endpoint"))
    }

    /// EndpointService.Detach; how many there were.
    pub fn detach(&self, request: DetachRequest) -> Result<u32, Status> {
        let mut service = self.endpoint_service().map_err(no_client)?;
        Ok(block_on(service.detach(within(request)))?.into_inner().removed)
    }

    /// EndpointService.Check.
    pub fn check(&self, request: CheckRequest) -> Result<(), Status> {
        let mut service = self.endpoint_service().map_err(no_client)?;
        block_on(service.check(within(request))).map(drop)
    }

    /// NetworkService.CreateNetwork.
    pub fn create_network(&self, network: Network) -> Result<NetworkStatus, Status> {
        let mut service = self.network_service().map_err(no_client)?;
        let request = CreateNetworkRequest { network: Some(network), force: false };
        let answer = block_on(service.create_network(within(request)))?.into_inner();
        answer.network.ok_or_else(|| Status::unknown("answered without a network"))
    }

    /// NetworkService.DeleteNetwork.
    pub fn delete_network(&self, name: &str) -> Result<(), Status> {
        let mut service = self.network_service().map_err(no_client)?;
        let request = DeleteNetworkRequest { name: name.to_owned() };
        block_on(service.delete_network(within(request))).map(drop)
    }

    /// SandboxService.Annotate.
    pub fn annotate(&self, sandbox: v1::Sandbox) -> Result<(), Status> {
        let mut service = self.sandbox_service().map_err(no_client)?;
        let request = AnnotateRequest { sandbox: Some(sandbox) };
        block_on(service.annotate(within(request))).map(drop)
    }

    /// SandboxService.Synchronize.
    pub fn synchronize(&self, request: SynchronizeRequest) -> Result<SynchronizeResponse, Status> {
        let mut service = self.sandbox_service().map_err(no_client)?;
        Ok(block_on(service.synchronize(within(request)))?.into_inner())
    }
}
