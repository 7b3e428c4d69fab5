#![allow(clippy::unwrap_used)]

use super::*;
use crate::network::NetworkOptions;

fn network(driver: Driver, subnets: &[&str]) -> Network {
    let pools = subnets
        .iter()
        .map(|s| Pool::new(s.parse().unwrap(), None, (None, None), vec![]).unwrap())
        .collect();
    let options = NetworkOptions { driver, ..Default::default() };
    Network::new("blue".parse().unwrap(), pools, options).unwrap()
}

fn spec(ifname: &str) -> AttachSpec {
    let key = EndpointKey { sandbox: "s1".parse().unwrap(), ifname: ifname.parse().unwrap() };
    AttachSpec {
        netns_path: Some("/run/netns/x".into()),
        ..AttachSpec::for_endpoint(key, "blue".parse().unwrap(), 1)
    }
}

fn assigned<'a>(network: &'a Network, ips: &[&str]) -> Vec<Assigned<'a>> {
    let pool = |ip: &IpAddr| network.pools.iter().find(|p| p.subnet.contains(ip)).unwrap();
    ips.iter().map(|s| s.parse().unwrap()).map(|ip| Assigned { ip, pool: pool(&ip) }).collect()
}

#[test]
fn a_bridged_pod_has_the_pools_prefix_and_a_default_route_a_family() {
    let net = network(Driver::Bridge, &["10.1.0.0/16", "fd00:1::/64", "10.9.0.0/24"]);
    let w = spec("eth0")
        .build_wiring(&net, &assigned(&net, &["10.1.0.5", "fd00:1::5"]), 1450, true)
        .unwrap();
    let text: Vec<_> = w.addresses.iter().map(|a| a.address.to_string()).collect();
    assert_eq!(text, ["10.1.0.5/16", "fd00:1::5/64"]);
    let routes: Vec<_> =
        w.routes.iter().map(|r| (r.destination.to_string(), r.gateway.is_some())).collect();
    let want = [("10.9.0.0/24", false), ("0.0.0.0/0", true), ("::/0", true)];
    assert_eq!(routes, want.map(|(d, g)| (d.to_owned(), g)));
    assert_eq!((w.mtu, w.mac.to_string().as_str()), (1450, "0a:58:0a:01:00:05"));
}

#[test]
fn a_routed_pod_has_host_addresses_and_a_link_local_next_hop() {
    let net = network(Driver::Routed, &["10.1.0.0/16"]);
    let w = spec("eth0").build_wiring(&net, &assigned(&net, &["10.1.0.5"]), 1500, true).unwrap();
    assert_eq!(w.addresses[0].address.to_string(), "10.1.0.5/32");
    assert_eq!(w.routes[0].destination.to_string(), "169.254.1.1/32");
    assert_eq!(w.routes[1].gateway, Some(ROUTED_GATEWAY_V4));
}

#[test]
fn additional_interfaces_have_no_default_route_and_a_next_hop_of_their_own() {
    let net = network(Driver::Routed, &["10.1.0.0/16"]);
    let assigned = assigned(&net, &["10.1.0.5"]);
    let never = AttachSpec { default_route: DefaultRoute::Never, ..spec("eth1") };
    for (spec, first) in [(never, true), (spec("eth1"), false)] {
        let w = spec.build_wiring(&net, &assigned, 1500, first).unwrap();
        assert_ne!(w.addresses[0].gateway, Some(ROUTED_GATEWAY_V4));
        assert!(w.routes.iter().all(|r| r.destination.prefix_len() != 0));
    }
}

#[test]
fn an_additional_interface_leads_out_if_it_asks_before_the_others() {
    for driver in [Driver::Bridge, Driver::Routed] {
        let net = network(driver, &["10.1.0.0/16", "fd00:1::/64"]);
        let assigned = assigned(&net, &["10.1.0.5", "fd00:1::5"]);
        let asks = AttachSpec { default_route: DefaultRoute::Always, ..spec("net1") };
        let out = |first| {
            let w = asks.build_wiring(&net, &assigned, 1500, first).unwrap();
            assert_eq!(
                w.addresses[0].gateway == Some(ROUTED_GATEWAY_V4),
                first && driver == Driver::Routed
            );
            let short = w.routes.into_iter().filter(|r| r.destination.prefix_len() < 2);
            short.map(|r| r.destination.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(out(false), ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]);
        assert_eq!(out(true), ["0.0.0.0/0", "::/0"]);
    }
}

#[test]
fn what_does_not_go_with_the_network_is_refused_by_field() {
    let net = network(Driver::Bridge, &["10.1.0.0/16"]);
    let port = PortMapping {
        host_port: 80,
        container_port: 80,
        protocol: crate::Protocol::Tcp,
        host_ip: Some("2001:db8::1".parse().unwrap()),
    };
    let bad = AttachSpec { mtu: Some(9000), port_mappings: vec![port], ..spec("eth0") };
    let err = bad.build_wiring(&net, &assigned(&net, &["10.1.0.5"]), 1500, true).unwrap_err();
    let fields: Vec<_> = err.violations.iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["mtu", "port_mappings[0].host_ip"]);
}
