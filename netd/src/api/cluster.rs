//! The service `netd.v1.ClusterService`.

use std::net::IpAddr;

use netd_api::v1::{self, EventType, cluster_service_server::ClusterService};
use tonic::{Request, Response, Status};

use super::{
    Api,
    watch::{self, Change, Outgoing, Source},
};
use crate::node::{
    Error,
    overlay::{NodeView, RouteView},
};
use netd_cluster::{Subnets, published::Published};
use netd_domain::Invalid;

/// Longest name of a node in a request.
const MAX_NODE_BYTES: usize = 253;

#[tonic::async_trait]
impl ClusterService for Api {
    type WatchClusterEndpointsStream = Outgoing<v1::WatchClusterEndpointsResponse>;

    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let view = self.node.overlay()?.cluster(&*self.node).await;
        let (behind_since, behind_reason) = view.behind.unwrap_or_default();
        Ok(Response::new(v1::ListNodesResponse {
            nodes: view.nodes.into_iter().map(node).collect(),
            behind_since: i64::try_from(behind_since).unwrap_or(i64::MAX),
            behind_reason,
            networks: view.networks.iter().map(ToString::to_string).collect(),
            backend: view.backend.to_owned(),
        }))
    }

    async fn get_route(
        &self,
        request: Request<v1::GetRouteRequest>,
    ) -> Result<Response<v1::GetRouteResponse>, Status> {
        let text = request.into_inner().ip;
        let ip: IpAddr = text.parse().map_err(|_| {
            let shown: String = text.chars().take(64).collect();
            Error::from(Invalid::field("ip", format!("\"{shown}\" is not an IP address")))
        })?;
        let view = self.node.overlay()?.route(&*self.node, ip).await?;
        Ok(Response::new(route(ip, view)))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let v1::RemoveNodeRequest { node, force } = request.into_inner();
        if node.is_empty() || node.len() > MAX_NODE_BYTES {
            let text = format!("a name, an address or a subnet, of 1 to {MAX_NODE_BYTES} bytes");
            return Err(Error::from(Invalid::field("node", text)).into());
        }
        let overlay = self.node.overlay()?.clone();
        let removed = overlay.remove_node(node, force).await?;
        let subnets = removed.subnets.iter().flat_map(Subnets::iter);
        Ok(Response::new(v1::RemoveNodeResponse {
            node: removed.node,
            subnets: subnets.map(|net| net.to_string()).collect(),
            public_ip: text(removed.attrs.public_v4),
            public_ipv6: text(removed.attrs.public_v6),
        }))
    }

    async fn watch_cluster_endpoints(
        &self,
        request: Request<v1::WatchClusterEndpointsRequest>,
    ) -> Result<Response<Self::WatchClusterEndpointsStream>, Status> {
        let (store, prefix) = self.node.overlay()?.endpoints()?;
        let source = Source { store, prefix, stop: self.stop.clone() };
        let after = request.into_inner().after_revision;
        Ok(Response::new(watch::records(source, after, event)))
    }
}

/// `None` for a record that can't be decoded. Its removal is reported all the same: the key
/// names the address.
fn event(change: Change<Published>) -> Option<v1::WatchClusterEndpointsResponse> {
    let endpoint = match (change.kind, change.record) {
        (EventType::Synced, _) => None,
        (EventType::Removed, _) => {
            let ip = change.key.rsplit('/').next().unwrap_or_default().to_owned();
            Some(v1::ClusterEndpoint { ips: vec![ip], ..Default::default() })
        }
        (_, Some(record)) => Some(endpoint(record)),
        (_, None) => return None,
    };
    Some(v1::WatchClusterEndpointsResponse {
        r#type: change.kind.into(),
        revision: change.revision,
        endpoint,
    })
}

fn endpoint(p: Published) -> v1::ClusterEndpoint {
    v1::ClusterEndpoint {
        ips: p.addresses.iter().map(ToString::to_string).collect(),
        node: p.node,
        sandbox_id: p.sandbox,
        ifname: p.ifname,
        network: p.network,
        pod_namespace: p.namespace,
        pod_name: p.name,
        pod_uid: p.uid,
        labels: p.labels.into_iter().collect(),
    }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn node(view: NodeView) -> v1::NodeSubnet {
    v1::NodeSubnet {
        subnets: view.subnets.iter().map(|net| net.to_string()).collect(),
        node: view.node,
        public_ip: text(view.attrs.public_v4),
        public_ipv6: text(view.attrs.public_v6),
        backend: view.attrs.backend_type.unwrap_or_default(),
        local: view.local,
        reservation: view.reservation,
        since: view.since,
        programmed: view.problem.is_none(),
        problem: view.problem.unwrap_or_default(),
    }
}

fn route(ip: IpAddr, view: RouteView) -> v1::GetRouteResponse {
    let (found, endpoint_problem) = match view.endpoint {
        None => (None, String::new()),
        Some(Ok(published)) => (Some(endpoint(published)), String::new()),
        Some(Err(problem)) => (None, problem),
    };
    let kernel = view.kernel.map(|k| v1::KernelRoute {
        device: k.device.to_string(),
        gateway: k.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
        source: k.source.map(|ip| ip.to_string()).unwrap_or_default(),
        mtu: k.mtu,
    });
    v1::GetRouteResponse {
        ip: ip.to_string(),
        node: view.node.map(node),
        endpoint: found,
        endpoint_problem,
        device: view.device,
        next_hop: view.next_hop,
        mtu: view.mtu,
        kernel,
        agrees: view.difference.is_none(),
        difference: view.difference.unwrap_or_default(),
    }
}
