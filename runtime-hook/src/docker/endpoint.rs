//! The methods of NetworkDriver about endpoints.

use std::net::IpAddr;

use netd_api::v1::{CreateEndpointRequest, Endpoint, JoinRequest, PublishRequest, Route};
use serde_json::json;

use super::{
    error::{DriverError, DriverResult},
    netd::{NetdClient, SOURCE},
    ports,
    types::{
        CreateEndpoint, EndpointCall, Interface, InterfaceName, Join, JoinAnswer, StaticRoute,
    },
};
use crate::{error::HookError, excerpt::escaped, status::Code};

/// libnetwork names the interface in the sandbox with this prefix and a number, as it does
/// for Docker's own drivers.
const INTERFACE_PREFIX: &str = "eth";

pub(super) async fn create(netd: &NetdClient, request: CreateEndpoint) -> DriverResult {
    let interface = request.interface;
    let given = [&interface.address, &interface.address_v6];
    let addresses: Vec<String> = given.into_iter().filter(|a| !a.is_empty()).cloned().collect();
    if addresses.is_empty() {
        return Err(DriverError::field(
            "Interface",
            "it has no address; create the network with an IPAM driver",
        ));
    }
    let labels = [("docker.network".to_owned(), request.network_id.clone())];
    let endpoint = netd
        .create_endpoint(CreateEndpointRequest {
            endpoint_id: request.endpoint_id,
            addresses,
            mac: interface.mac_address.clone(),
            labels: labels.into(),
            source: format!("{SOURCE}/{}", request.network_id),
            ..CreateEndpointRequest::default()
        })
        .await?;
    // dockerd refuses an answer that repeats a MAC address which it has chosen.
    let mac = if interface.mac_address.is_empty() { endpoint.mac } else { String::new() };
    let chosen = Interface { mac_address: mac, ..Interface::default() };
    Ok(json!({ "Interface": chosen }))
}

pub(super) async fn info(netd: &NetdClient, request: EndpointCall) -> DriverResult {
    let found = netd.endpoint(&request.endpoint_id).await?;
    let endpoint = found.ok_or_else(|| no_endpoint(&request.endpoint_id))?;
    Ok(json!({"Value": {
        "com.docker.network.endpoint.macaddress": endpoint.mac,
        "netd.network": endpoint.network,
        "netd.host_interface": endpoint.host_interface,
        "netd.mtu": endpoint.mtu.to_string(),
    }}))
}

pub(super) async fn delete(netd: &NetdClient, request: EndpointCall) -> DriverResult {
    netd.delete_endpoint(&request.endpoint_id).await?;
    Ok(json!({}))
}

pub(super) async fn join(netd: &NetdClient, request: Join) -> DriverResult {
    let join = JoinRequest {
        endpoint_id: request.endpoint_id.clone(),
        netns_path: request.sandbox_key,
        source: SOURCE.to_owned(),
    };
    let endpoint = netd.join(join).await.map_err(|e| of_endpoint(e, &request.endpoint_id))?;
    serde_json::to_value(join_answer(&endpoint)).map_err(|e| DriverError::field("answer", e))
}

/// The interface that libnetwork is to move, and the routes that it is to set.
fn join_answer(endpoint: &Endpoint) -> JoinAnswer {
    let is_default = |route: &&Route| route.destination.ends_with("/0");
    let is_v4 = |route: &&Route| route.gateway.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
    let default_routes = || endpoint.routes.iter().filter(is_default);
    let gateway_of = |route: Option<&Route>| route.map(|r| r.gateway.clone()).unwrap_or_default();
    let gateway = gateway_of(default_routes().find(is_v4));
    let gateway_v6 = gateway_of(default_routes().find(|route| !is_v4(route)));
    let others = endpoint.routes.iter().filter(|route| !is_default(route));
    let static_routes = others.map(|route| StaticRoute {
        destination: route.destination.clone(),
        route_type: u8::from(route.gateway.is_empty()),
        next_hop: route.gateway.clone(),
    });
    JoinAnswer {
        interface_name: InterfaceName {
            src_name: endpoint.sandbox_interface.clone(),
            dst_prefix: INTERFACE_PREFIX,
        },
        disable_gateway_service: gateway.is_empty() && gateway_v6.is_empty(),
        gateway,
        gateway_v6,
        static_routes: static_routes.collect(),
    }
}

pub(super) async fn leave(netd: &NetdClient, request: EndpointCall) -> DriverResult {
    netd.leave(&request.endpoint_id).await?;
    Ok(json!({}))
}

pub(super) async fn publish(netd: &NetdClient, request: EndpointCall) -> DriverResult {
    let ports = ports::parse(&request.options)?;
    let published = ports::publish(netd, &request.endpoint_id, &ports).await;
    published.map_err(|e| of_endpoint(e, &request.endpoint_id))?;
    Ok(json!({}))
}

pub(super) async fn revoke(netd: &NetdClient, request: EndpointCall) -> DriverResult {
    let none = PublishRequest {
        endpoint_id: request.endpoint_id,
        source: SOURCE.to_owned(),
        ..PublishRequest::default()
    };
    match netd.publish(none).await {
        Err(error) if !is_missing(&error) => Err(error.into()),
        _ => Ok(json!({})),
    }
}

/// Names the endpoint if netd refused a call because Docker has created no such endpoint.
fn of_endpoint(error: HookError, endpoint_id: &str) -> DriverError {
    if is_missing(&error) { no_endpoint(endpoint_id) } else { error.into() }
}

fn is_missing(error: &HookError) -> bool {
    matches!(error, HookError::Refused(refusal) if refusal.code == Code::NotFound)
}

fn no_endpoint(endpoint_id: &str) -> DriverError {
    let problem = format!("netd has no endpoint \"{}\" that Docker created", escaped(endpoint_id));
    DriverError::field("EndpointID", problem)
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
        let joined = join_answer(&endpoint);
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
    fn without_a_default_route_docker_adds_no_gateway_of_its_own() {
        let joined = join_answer(&Endpoint::default());
        assert!(joined.disable_gateway_service && joined.gateway.is_empty());
    }
}
