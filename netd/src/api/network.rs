//! The service `netd.v1.NetworkService`.

use ipnet::IpNet;
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
            let force = force || network.allow_host_overlap;
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
        let external_pools = self.node.external_pools().into_iter();
        let external_pools = external_pools.map(|(subnet, used)| v1::ExternalPool {
            subnet: subnet.to_string(),
            used: used.try_into().unwrap_or(u64::MAX),
        });
        let external_pools = external_pools.collect();
        let list = v1::ListNetworksResponse { networks, host_networks, external_pools };
        Ok(Response::new(list))
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
            let external = external_subnet(&request.external_subnet, subnet.as_ref(), &mut bad);
            bad.into_result().map_err(Error::from)?;
            let subnet = subnet.ok_or_else(|| Error::Internal("subnet".into()))?;
            if let Some(whole) = external.filter(|whole| self.node.is_external(whole)) {
                let reserved = self.node.reserve_external_address(whole, subnet, wanted).await?;
                let (address, network) = (reserved.to_string(), String::new());
                return Ok(Response::new(v1::ReserveAddressResponse { address, network }));
            }
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

/// The whole subnet of another program's network, with `part` in it; `None`: the request names
/// none.
fn external_subnet(text: &str, part: Option<&IpNet>, bad: &mut Invalid) -> Option<IpNet> {
    if text.is_empty() {
        return None;
    }
    let whole: IpNet = bad.take("external_subnet", parse(text, "a subnet, e.g. 10.88.0.0/16"))?;
    if whole != whole.trunc() {
        bad.add("external_subnet", format!("{whole} has host bits set; use {}", whole.trunc()));
    } else if let Some(part) = part.filter(|part| !whole.contains(*part)) {
        bad.add("subnet", format!("{part} is not within external_subnet {whole}"));
    }
    Some(whole)
}

fn name(text: &str) -> Result<NetworkName, Error> {
    text.parse().map_err(|e| Invalid::field("name", e).into())
}
