//! The service `netd.v1.NetworkService`.

use netd_api::v1::{self, network_service_server::NetworkService};
use tonic::{Request, Response, Status};

use super::{
    Api, convert,
    network_request::{self, optional, parse},
    transport::peer_cred,
    watch::{self, Change, Outgoing},
};
use crate::metrics::Verb;
use crate::node::Error;
use netd_domain::{Invalid, Network, NetworkName};
use netd_store::keys;

#[tonic::async_trait]
impl NetworkService for Api {
    async fn create_network(
        &self,
        request: Request<v1::CreateNetworkRequest>,
    ) -> Result<Response<v1::CreateNetworkResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let v1::CreateNetworkRequest { network, force } = request.into_inner();
            let network = network_request::network(network).map_err(Error::from)?;
            let name = network.name.clone();
            self.node.create_network(network, force).await?;
            let network = Some(convert::network_status(&self.node.network(&name)?));
            Ok(Response::new(v1::CreateNetworkResponse { network }))
        };
        self.counted(Verb::CreateNetwork, span, done).await
    }

    async fn get_network(
        &self,
        request: Request<v1::GetNetworkRequest>,
    ) -> Result<Response<v1::GetNetworkResponse>, Status> {
        let name = name(&request.into_inner().name)?;
        let network = Some(convert::network_status(&self.node.network(&name)?));
        Ok(Response::new(v1::GetNetworkResponse { network }))
    }

    async fn list_networks(
        &self,
        _: Request<v1::ListNetworksRequest>,
    ) -> Result<Response<v1::ListNetworksResponse>, Status> {
        let networks = self.node.networks().iter().map(convert::network_status).collect();
        // Who asks for the networks gets them, whatever the kernel says.
        let host_networks = self.node.host_networks().await.unwrap_or_default();
        let host_networks = host_networks.into_iter().map(|host| v1::HostNetwork {
            subnet: host.net.to_string(),
            device: host.device,
            routed: host.routed,
        });
        let host_networks = host_networks.collect();
        Ok(Response::new(v1::ListNetworksResponse { networks, host_networks }))
    }

    async fn delete_network(
        &self,
        request: Request<v1::DeleteNetworkRequest>,
    ) -> Result<Response<v1::DeleteNetworkResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let name = name(&request.into_inner().name)?;
            self.node.delete_network(&name).await?;
            Ok(Response::new(v1::DeleteNetworkResponse {}))
        };
        self.counted(Verb::DeleteNetwork, span, done).await
    }

    async fn set_pod_access(
        &self,
        request: Request<v1::SetPodAccessRequest>,
    ) -> Result<Response<v1::SetPodAccessResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let mut bad = Invalid::new();
            let name = bad.take("network", request.network.parse::<NetworkName>());
            let access = network_request::pod_access(request.pods.unwrap_or_default());
            let access = access.map_err(|inner| bad.nest("pods", inner)).ok();
            bad.into_result().map_err(Error::from)?;
            let (Some(name), Some(access)) = (name, access) else {
                return Err(Error::Internal("a field is missing".into()).into());
            };
            self.node.set_pod_access(&name, access).await?;
            let network = Some(convert::network_status(&self.node.network(&name)?));
            Ok(Response::new(v1::SetPodAccessResponse { network }))
        };
        self.counted(Verb::SetPodAccess, span, done).await
    }

    async fn reserve_address(
        &self,
        request: Request<v1::ReserveAddressRequest>,
    ) -> Result<Response<v1::ReserveAddressResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let request = request.into_inner();
            let mut bad = Invalid::new();
            let subnet = bad.take("subnet", parse(&request.subnet, "a subnet, e.g. 10.88.0.0/16"));
            let wanted = optional(&request.address, "address", &mut bad);
            bad.into_result().map_err(Error::from)?;
            let subnet = subnet.ok_or_else(|| Error::Internal("subnet".into()))?;
            let hold = self.node.reserve_address(subnet, wanted).await?;
            let (address, network) = (hold.address.to_string(), hold.network.to_string());
            Ok(Response::new(v1::ReserveAddressResponse { address, network }))
        };
        self.counted(Verb::ReserveAddress, span, done).await
    }

    async fn release_address(
        &self,
        request: Request<v1::ReleaseAddressRequest>,
    ) -> Result<Response<v1::ReleaseAddressResponse>, Status> {
        let span = peer_cred::span(&request);
        let done = async {
            let text = request.into_inner().address;
            let ip = parse(&text, "an IP address").map_err(|e| Invalid::field("address", e));
            self.node.release_address(ip.map_err(Error::from)?).await?;
            Ok(Response::new(v1::ReleaseAddressResponse {}))
        };
        self.counted(Verb::ReleaseAddress, span, done).await
    }

    type WatchNetworksStream = Outgoing<v1::WatchNetworksResponse>;

    async fn watch_networks(
        &self,
        request: Request<v1::WatchNetworksRequest>,
    ) -> Result<Response<Self::WatchNetworksStream>, Status> {
        let after = request.into_inner().after_revision;
        let message = |change: Change<Network>| {
            let gone = || {
                let name = change.key.strip_prefix(keys::NETWORKS)?.to_owned();
                Some(v1::Network { name, ..Default::default() })
            };
            let network = change.record.as_ref().map(convert::network).or_else(gone);
            let (r#type, revision) = (change.kind.into(), change.revision);
            Some(v1::WatchNetworksResponse { r#type, revision, network })
        };
        let source = self.watched(keys::NETWORKS);
        Ok(Response::new(watch::records(source, after, message)))
    }
}

fn name(text: &str) -> Result<NetworkName, Error> {
    text.parse().map_err(|e| Invalid::field("name", e).into())
}
