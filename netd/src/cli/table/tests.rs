#![allow(clippy::unwrap_used)]

use netd_api::v1;

use super::{endpoint, network, status};
use crate::terminal::Output;

fn sample() -> v1::Endpoint {
    v1::Endpoint {
        sandbox_id: "0123456789abcdef".to_owned(),
        interface: "eth0".to_owned(),
        network: "default".to_owned(),
        state: v1::EndpointState::Attached.into(),
        host_interface: "nd1".to_owned(),
        addresses: vec![v1::Address {
            address: "10.88.0.5/16".into(),
            gateway: "10.88.0.1".into(),
        }],
        pod: Some(v1::PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u".into() }),
        port_mappings: vec![v1::PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: v1::Protocol::Tcp.into(),
            host_ip: String::new(),
        }],
        named_ports: vec![v1::NamedPort {
            name: "http".into(),
            port: 80,
            protocol: v1::Protocol::Tcp.into(),
        }],
        ..Default::default()
    }
}

#[test]
fn endpoints_are_a_table_that_can_be_cut() {
    let list = endpoint::Endpoints { endpoints: vec![sample().into()], revision: Some(1) };
    let text = list.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    let want = ["0123456789abc", "eth0", "ns/web", "default", "10.88.0.5", "attached", "nd1", "-"];
    assert_eq!(cells, want);
    let full = endpoint::Endpoint::from(sample()).text();
    assert!(full.contains("host ports:     *:8080->80/tcp\n"), "{full}");
    assert!(full.contains("named ports:    http 80/tcp\n"), "{full}");
}

#[test]
fn json_has_stable_names_and_every_field() {
    let json = serde_json::to_value(endpoint::Endpoint::from(sample())).unwrap();
    assert_eq!(json["sandboxId"], "0123456789abcdef");
    assert_eq!(json["state"], "attached");
    assert_eq!(json["portMappings"][0]["hostPort"], 8080);
    assert_eq!(json["bandwidth"]["ingressRate"], 0);
    assert_eq!(json["namedPorts"][0]["protocol"], "tcp");
    assert_eq!(json.as_object().unwrap().len(), 24);
}

#[test]
fn a_list_shows_enough_of_each_id_to_inspect_it() {
    let list = |ids: &[&str]| {
        let endpoint =
            |id: &&str| v1::Endpoint { sandbox_id: id.to_string(), ..Default::default() };
        let endpoints = ids.iter().map(endpoint).map(endpoint::Endpoint::from).collect();
        endpoint::Endpoints { endpoints, revision: None }.text()
    };
    let text = list(&["0123456789abcdef", "f123456789abcdef"]);
    assert!(text.contains("0123456789abc ") && !text.contains("abcdef"), "{text}");
    let text = list(&["0123456789abcdef", "0123456789abcdff", "0123456789abcdff"]);
    assert!(text.contains("0123456789abcde ") && text.contains("0123456789abcdf "), "{text}");
}

#[test]
fn a_network_shows_its_pools_with_their_use() {
    let net = v1::NetworkStatus {
        network: Some(v1::Network {
            name: "blue".into(),
            driver: v1::Driver::Routed.into(),
            pools: vec![v1::Pool { subnet: "10.1.0.0/24".into(), ..Default::default() }],
            docker0: vec!["10.1.7.0/24".into()],
            ..Default::default()
        }),
        pools: vec![v1::PoolUsage { subnet: "10.1.0.0/24".into(), size: 253, used: 2 }],
        problem: "no such underlay".into(),
        ..Default::default()
    };
    let text = network::Network::from(net.clone()).text();
    assert!(text.contains("2 of 253") && text.contains("not ready: no such underlay"), "{text}");
    assert!(text.contains("docker0") && text.contains("10.1.7.0/24"), "{text}");
    let list = network::Networks::from(v1::ListNetworksResponse {
        networks: vec![net],
        external_pools: vec![v1::ExternalPool { subnet: "10.67.0.0/24".into(), used: 3 }],
        ..Default::default()
    });
    assert!(list.text().contains("routed"), "{}", list.text());
    let external = list.text().lines().last().unwrap_or_default().to_owned();
    assert!(external.starts_with("10.67.0.0/24") && external.ends_with('3'), "{external}");
}

#[test]
fn a_status_says_what_is_not_ready() {
    let text = status::Status::from(v1::GetStatusResponse {
        components: vec![v1::Component {
            name: "store".into(),
            reason: "disk full".into(),
            ..Default::default()
        }],
        drift: vec![v1::DriftCount { kind: "link".into(), repaired: 2 }],
        ..Default::default()
    })
    .text();
    assert!(text.starts_with("ready:     no\n"), "{text}");
    assert!(text.contains("2 link") && text.contains("disk full"), "{text}");
}
