//! NetworkDriver: endpoints.

use std::net::IpAddr;

use netd_api::v1::{CreateEndpointRequest, Endpoint, JoinRequest, PublishRequest, Route};
use serde_json::{Value, json};

use super::{
    Netd,
    netd::SOURCE,
    ports,
    server::{Answer, Failure, shown},
    wire::{CreateEndpoint, Interface, InterfaceName, Join, Joined, OfEndpoint, StaticRoute},
};

/// Names in the sandbox are this and a number, as with Docker's own drivers.
const PREFIX: &str = "eth";

pub async fn create(netd: &Netd, request: CreateEndpoint) -> Answer {
    let interface = request.interface;
    let given = [&interface.address, &interface.address_v6];
    let addresses: Vec<String> = given.into_iter().filter(|a| !a.is_empty()).cloned().collect();
    if addresses.is_empty() {
        return Err(Failure::field("Interface", "no address: the network needs an IPAM driver"));
    }
    let labels = [("docker.network".to_owned(), request.network_id.clone())];
    let endpoint = netd
        .create_endpoint(CreateEndpointRequest {
            endpoint_id: request.endpoint_id,
            addresses,
            mac: interface.mac_address.clone(),
            labels: labels.into(),
            source: format!("{SOURCE}{}", request.network_id),
            ..CreateEndpointRequest::default()
        })
        .await?;
    // dockerd refuses an answer with what it has chosen itself.
    let mac = if interface.mac_address.is_empty() { endpoint.mac } else { String::new() };
    let chosen = Interface { mac_address: mac, ..Interface::default() };
    Ok(json!({ "Interface": chosen }))
}

pub async fn info(netd: &Netd, request: OfEndpoint) -> Answer {
    let endpoint = wanted(netd, &request.endpoint_id).await?;
    Ok(json!({"Value": {
        "com.docker.network.endpoint.macaddress": endpoint.mac,
        "netd.network": endpoint.network,
        "netd.host_interface": endpoint.host_interface,
        "netd.mtu": endpoint.mtu.to_string(),
    }}))
}

pub async fn delete(netd: &Netd, request: OfEndpoint) -> Answer {
    if let Some(endpoint) = netd.endpoint(&request.endpoint_id).await? {
        netd.detach(&endpoint).await?;
    }
    Ok(json!({}))
}

pub async fn join(netd: &Netd, request: Join) -> Answer {
    wanted(netd, &request.endpoint_id).await?;
    let (endpoint_id, netns_path) = (request.endpoint_id, request.sandbox_key);
    let endpoint = netd.join(JoinRequest { endpoint_id, netns_path }).await?;
    serde_json::to_value(joined(&endpoint)).map_err(|e| Failure::field("answer", e))
}

/// The interface to be moved, and the routes that libnetwork is to set.
fn joined(endpoint: &Endpoint) -> Joined {
    let leads_out = |route: &&Route| route.destination.ends_with("/0");
    let v4 = |route: &&Route| route.gateway.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    let out = || endpoint.routes.iter().filter(leads_out);
    let gateway = |route: Option<&Route>| route.map(|r| r.gateway.clone()).unwrap_or_default();
    let (gateway, gateway_v6) = (gateway(out().find(v4)), gateway(out().find(|route| !v4(route))));
    let others = endpoint.routes.iter().filter(|route| !leads_out(route));
    let static_routes = others.map(|route| StaticRoute {
        destination: route.destination.clone(),
        route_type: u8::from(route.gateway.is_empty()),
        next_hop: route.gateway.clone(),
    });
    Joined {
        interface_name: InterfaceName {
            src_name: endpoint.sandbox_interface.clone(),
            dst_prefix: PREFIX,
        },
        disable_gateway_service: gateway.is_empty() && gateway_v6.is_empty(),
        gateway,
        gateway_v6,
        static_routes: static_routes.collect(),
    }
}

pub async fn leave(netd: &Netd, request: OfEndpoint) -> Answer {
    if netd.endpoint(&request.endpoint_id).await?.is_some() {
        netd.leave(&request.endpoint_id).await?;
    }
    Ok(json!({}))
}

pub async fn publish(netd: &Netd, request: OfEndpoint) -> Answer {
    let asked = ports::read(&request.options)?;
    wanted(netd, &request.endpoint_id).await?;
    ports::publish(netd, &request.endpoint_id, &asked).await?;
    Ok(json!({}))
}

pub async fn revoke(netd: &Netd, request: OfEndpoint) -> Answer {
    if netd.endpoint(&request.endpoint_id).await?.is_some() {
        let endpoint_id = request.endpoint_id;
        netd.publish(PublishRequest { endpoint_id, ..PublishRequest::default() }).await?;
    }
    Ok(json!({}))
}

async fn wanted(netd: &Netd, endpoint_id: &str) -> Result<Endpoint, Failure> {
    let found = netd.endpoint(endpoint_id).await?;
    let problem = || format!("netd has no endpoint \"{}\" of Docker's", shown(endpoint_id));
    found.ok_or_else(|| Failure::field("EndpointID", problem()))
}

/// A JSON value as text, cut.
pub(super) fn text_of(value: &Value) -> String {
    shown(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(destination: &str, gateway: &str) -> Route {
        Route { destination: destination.into(), gateway: gateway.into() }
    }

    #[test]
    fn default_routes_are_gateways_and_the_rest_static_routes() {
        let endpoint = Endpoint {
            sandbox_interface: "np0123456789ab".into(),
            routes: vec![
                route("169.254.1.1/32", ""),
                route("0.0.0.0/0", "169.254.1.1"),
                route("10.9.0.0/24", "169.254.1.1"),
                route("::/0", "fe80::1"),
            ],
            ..Endpoint::default()
        };
        let joined = joined(&endpoint);
        assert_eq!(
            (joined.gateway.as_str(), joined.gateway_v6.as_str()),
            ("169.254.1.1", "fe80::1")
        );
        let routes: Vec<_> =
            joined.static_routes.iter().map(|r| (r.destination.as_str(), r.route_type)).collect();
        assert_eq!(routes, [("169.254.1.1/32", 1), ("10.9.0.0/24", 0)]);
        assert!(!joined.disable_gateway_service);
    }

    #[test]
    fn a_network_without_a_way_out_gets_none_of_dockers() {
        let joined = joined(&Endpoint::default());
        assert!(joined.disable_gateway_service && joined.gateway.is_empty());
    }
}
