//! Turns domain values into wire messages.

use netd_api::v1;

use crate::node::{KernelStatus, NetworkView};
use netd_domain::{
    Driver, Endpoint, IfName, Mac, NamedPort, Network, Phase, PodAccess, PortMapping, Protocol,
    RepairScope, Stage, WiringDriver,
};

/// An endpoint. Without `work` (the record comes from the store) its phase gives the state.
/// `bridge_mac`: of a bridge of this node; the record does not say whether netd adopted it.
pub(crate) fn endpoint(
    endpoint: &Endpoint,
    work: Option<&KernelStatus>,
    bridge_mac: impl Fn(&IfName) -> Mac,
) -> v1::Endpoint {
    let wiring = &endpoint.wiring;
    let (bridge, bridge_mac) = match &wiring.driver {
        WiringDriver::Bridge(name) => (name.to_string(), bridge_mac(name).to_string()),
        WiringDriver::Routed => Default::default(),
    };
    v1::Endpoint {
        sandbox_id: endpoint.key.sandbox.to_string(),
        interface: endpoint.key.ifname.to_string(),
        network: endpoint.network.to_string(),
        state: state(endpoint, work).into(),
        netns_path: endpoint.netns_display().to_string(),
        netns_inode: endpoint.netns.map_or(0, |netns| netns.inode),
        host_interface: wiring.host_ifname.to_string(),
        mac: wiring.mac.to_string(),
        host_mac: wiring.host_mac.to_string(),
        mtu: wiring.mtu,
        addresses: wiring
            .addresses
            .iter()
            .map(|a| v1::Address {
                address: a.address.to_string(),
                gateway: a.gateway.map(|g| g.to_string()).unwrap_or_default(),
            })
            .collect(),
        routes: wiring
            .routes
            .iter()
            .chain(endpoint.runtime_placed.iter().flat_map(|placed| &placed.routes))
            .map(|r| v1::Route {
                destination: r.destination.to_string(),
                gateway: r.gateway.map(|g| g.to_string()).unwrap_or_default(),
            })
            .collect(),
        pod: Some(v1::PodIdentity {
            namespace: endpoint.pod.namespace.clone(),
            name: endpoint.pod.name.clone(),
            uid: endpoint.pod.uid.clone(),
        }),
        labels: endpoint.labels.clone().into_iter().collect(),
        annotations: endpoint.annotations.clone().into_iter().collect(),
        port_mappings: wiring.port_mappings.iter().map(port).collect(),
        bandwidth: Some(v1::Bandwidth {
            ingress_rate: wiring.bandwidth.ingress_rate,
            ingress_burst: wiring.bandwidth.ingress_burst,
            egress_rate: wiring.bandwidth.egress_rate,
            egress_burst: wiring.bandwidth.egress_burst,
        }),
        dns: Some(v1::Dns {
            nameservers: endpoint.dns.nameservers.clone(),
            domain: endpoint.dns.domain.clone(),
            search: endpoint.dns.search.clone(),
            options: endpoint.dns.options.clone(),
        }),
        created_at: endpoint.created_at,
        bridge,
        bridge_mac,
        source: endpoint.source.clone(),
        host_port_conflicts: Vec::new(),
        changes_inside: vec![],
        named_ports: endpoint.named_ports.iter().map(named_port).collect(),
        sandbox_interface: match endpoint.runtime_placed {
            Some(_) => wiring.ifname.to_string(),
            None => String::new(),
        },
    }
}

fn state(endpoint: &Endpoint, work: Option<&KernelStatus>) -> v1::EndpointState {
    match (endpoint.phase, work) {
        (Phase::Detaching, _) => v1::EndpointState::Detaching,
        (Phase::Attached, _) if endpoint.stage() == Some(Stage::Created) => {
            v1::EndpointState::Created
        }
        (Phase::Attached, _) if endpoint.stage() == Some(Stage::Pending) => {
            v1::EndpointState::Attaching
        }
        (Phase::Attached, None | Some(KernelStatus::Attached)) => v1::EndpointState::Attached,
        (Phase::Attached, Some(_)) => v1::EndpointState::Attaching,
    }
}

fn named_port(port: &NamedPort) -> v1::NamedPort {
    let protocol = protocol(port.protocol).into();
    v1::NamedPort { name: port.name.clone(), port: port.port.into(), protocol }
}

fn protocol(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
        Protocol::Sctp => v1::Protocol::Sctp,
    }
}

fn port(port: &PortMapping) -> v1::PortMapping {
    v1::PortMapping {
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: protocol(port.protocol).into(),
        host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

/// A network as created.
pub(crate) fn network(network: &Network) -> v1::Network {
    let driver = match network.driver {
        Driver::Bridge => v1::Driver::Bridge,
        Driver::Routed => v1::Driver::Routed,
    };
    let pools = network.pools.iter().map(|p| v1::Pool {
        subnet: p.subnet.to_string(),
        gateway: p.gateway.to_string(),
        range_start: p.range_start.to_string(),
        range_end: p.range_end.to_string(),
        reserved: p.reserved.iter().map(ToString::to_string).collect(),
    });
    let bridged = network.driver == Driver::Bridge;
    v1::Network {
        name: network.name.to_string(),
        driver: driver.into(),
        pools: pools.collect(),
        bridge: if bridged { network.bridge.to_string() } else { String::new() },
        mtu: network.mtu.unwrap_or(0),
        masquerade: network.masquerade,
        internal: network.internal,
        published_only: network.published_only,
        allow_host_overlap: network.allow_host_overlap,
        repair: match network.repair {
            RepairScope::Host => v1::RepairScope::Host,
            RepairScope::Pod => v1::RepairScope::Pod,
        }
        .into(),
        cluster: network
            .leased
            .iter()
            .flat_map(|leased| leased.cluster.iter().map(ToString::to_string))
            .collect(),
        docker0: network
            .leased
            .iter()
            .flat_map(|leased| leased.docker0.iter().map(ToString::to_string))
            .collect(),
        pods: Some(pod_access(&network.access())),
    }
}

fn pod_access(access: &PodAccess) -> v1::PodAccess {
    v1::PodAccess {
        namespaces: access.namespaces().map(str::to_owned).collect(),
        addresses: access.addresses,
        macs: access.macs,
    }
}

/// A network and its state.
pub(crate) fn network_status(view: &NetworkView) -> v1::NetworkStatus {
    let pools = view.pools.iter().map(|p| v1::PoolUsage {
        subnet: p.subnet.to_string(),
        size: p.size,
        used: p.used,
    });
    v1::NetworkStatus {
        network: Some(network(&view.state.network)),
        pools: pools.collect(),
        endpoints: u32::try_from(view.endpoints).unwrap_or(u32::MAX),
        mtu: view.state.wiring.mtu,
        ready: view.problem.is_none(),
        problem: view.problem.clone().unwrap_or_default(),
    }
}
