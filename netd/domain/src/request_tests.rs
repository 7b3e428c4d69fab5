#![allow(clippy::unwrap_used)]

use super::*;
use crate::{Bandwidth, Dns, Protocol};

fn endpoint() -> Endpoint {
    let seed = include_str!("../../../fuzz/seeds/stored_records/bridge.json");
    let line = seed.lines().find(|line| line.contains("\"phase\"")).unwrap();
    serde_json::from_str(line).unwrap()
}

/// A request that asks for what the endpoint has.
fn spec(endpoint: &Endpoint) -> AttachSpec {
    let network = endpoint.network.clone();
    AttachSpec {
        port_mappings: endpoint.wiring.port_mappings.clone(),
        bandwidth: endpoint.wiring.bandwidth,
        dns: endpoint.dns.clone(),
        mtu: endpoint.fixed_mtu.then_some(endpoint.wiring.mtu),
        ..AttachSpec::for_endpoint(endpoint.key.clone(), network, 1)
    }
}

/// One for each part, and a word of what is said about it.
fn others(base: &AttachSpec) -> Vec<(AttachSpec, &'static str)> {
    let port =
        PortMapping { host_port: 9999, container_port: 99, protocol: Protocol::Udp, host_ip: None };
    let dns = Dns { domain: "other".into(), ..Dns::default() };
    let bandwidth = Bandwidth { ingress_rate: 7, ingress_burst: 7, ..Bandwidth::default() };
    let base = || base.clone();
    vec![
        (AttachSpec { network: "other".parse().unwrap(), ..base() }, "not \"other\""),
        (AttachSpec { addresses: vec!["10.77.7.7".parse().unwrap()], ..base() }, "not 10.77.7.7"),
        (AttachSpec { mac: Some("02:00:00:00:00:77".parse().unwrap()), ..base() }, ":77"),
        (AttachSpec { mtu: Some(777), ..base() }, "not 777"),
        (AttachSpec { port_mappings: vec![port], ..base() }, "not *:9999->99/udp"),
        (AttachSpec { bandwidth, ..base() }, "bandwidth"),
        (AttachSpec { dns, ..base() }, "DNS"),
    ]
}

#[test]
fn a_request_that_differs_is_told_by_what_differs_with_and_without_a_digest() {
    for digest in [false, true] {
        let mut endpoint = endpoint();
        let same = spec(&endpoint);
        endpoint.request = digest.then(|| RequestDigest::of(&same));
        assert_eq!(same.differences(&endpoint), Vec::<String>::new());
        for (other, word) in others(&same) {
            let said = other.differences(&endpoint);
            assert!(said.len() == 1 && said[0].contains(word), "{word}: {said:?}");
        }
    }
    let mut endpoint = endpoint();
    let same = spec(&endpoint);
    endpoint.request = Some(RequestDigest::of(&same));
    let never = AttachSpec { default_route: DefaultRoute::Never, ..same };
    assert_eq!(never.differences(&endpoint).len(), 1);
}

#[test]
fn the_order_of_wishes_is_none() {
    let endpoint = endpoint();
    let port = |host_port| PortMapping {
        host_port,
        container_port: 80,
        protocol: Protocol::Tcp,
        host_ip: None,
    };
    let ip = |text: &str| text.parse().unwrap();
    let one = AttachSpec {
        addresses: vec![ip("10.1.0.9"), ip("fd00::9")],
        port_mappings: vec![port(80), port(81)],
        ..spec(&endpoint)
    };
    let mut other = one.clone();
    other.addresses.reverse();
    other.port_mappings.reverse();
    other.labels.insert("a".into(), "b".into());
    assert_eq!(RequestDigest::of(&one), RequestDigest::of(&other));
}

#[test]
fn a_digest_is_text_and_one_of_a_later_release_is_compared_as_far_as_it_is_known() {
    let mut endpoint = endpoint();
    let same = spec(&endpoint);
    let text = String::from(RequestDigest::of(&same));
    assert_eq!(text.len(), 64);
    let longer = RequestDigest::try_from(format!("{text}00000001")).unwrap();
    endpoint.request = Some(longer);
    assert_eq!(same.differences(&endpoint), Vec::<String>::new());
    for bad in ["x", "0000000g", "+0000001", "é"] {
        let _ = RequestDigest::try_from(bad.to_owned());
    }
    assert!(RequestDigest::try_from("123".to_owned()).is_err());
    assert!(RequestDigest::try_from("0000000g".to_owned()).is_err());
}
