//! Endpoints that a runtime moves: created, joined, seen, left, crashed in between.

use std::net::IpAddr;

use netd::node::{EndpointRef, Error, now_boot};
use netd_domain::{AttachSpec, Endpoint, Protocol, Stage};

use super::{
    bed::{Bed, Process, key, spec},
    space::Space,
};

fn stage(endpoint: &Endpoint) -> Stage {
    endpoint.stage().unwrap()
}

fn created(name: &str, addresses: &[&str]) -> AttachSpec {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    let spec = spec(&key(name, "eth0"), &Space::new(), "default");
    AttachSpec { addresses, netns_path: None, ..spec }
}

fn create(netd: &Process, spec: AttachSpec) -> netd::node::Result<std::sync::Arc<Endpoint>> {
    netd.run(netd.node.create_endpoint(spec))
}

/// What libnetwork does after Join.
fn move_into(bed: &Bed, pod: &Space, endpoint: &Endpoint, name: &str) {
    let waiting = &endpoint.wiring.ifname;
    let target = pod.path().display().to_string();
    bed.host.ip(&format!("link set {waiting} netns {target}"));
    let address = endpoint.wiring.addresses[0].address;
    pod.ip(&format!("link set {waiting} name {name}"));
    pod.ip(&format!("address add {address} dev {name}"));
    pod.ip(&format!("link set {name} up"));
}

fn is_at(netd: &Process, spec: &AttachSpec, wanted: Stage) {
    let key = spec.key.clone();
    netd.until(&format!("{wanted:?}"), move |node| {
        node.endpoint(&key).is_ok_and(|(e, _)| stage(&e) == wanted)
    });
}

#[test]
fn an_endpoint_is_found_where_the_runtime_moved_it_and_outlives_a_crash_at_every_stage() {
    let bed = Bed::new();
    let (pod, asked) = (Space::new(), created("one", &[]));
    let netd = bed.start();
    let first = create(&netd, asked.clone()).unwrap();
    assert_eq!(stage(&first), Stage::Created);
    drop(netd);
    let netd = bed.start();
    assert_eq!(create(&netd, asked.clone()).unwrap().wiring, first.wiring, "the same again");
    let joined = netd.run(netd.node.join(asked.key.clone(), pod.path())).unwrap();
    assert_eq!(stage(&joined), Stage::Pending);
    drop(netd);
    let netd = bed.start();
    // Moved while netd looks, or before it does.
    move_into(&bed, &pod, &joined, "net7");
    is_at(&netd, &asked, Stage::Placed);
    let (placed, _) = netd.node.endpoint(&asked.key).unwrap();
    assert_eq!(placed.wiring.ifname.as_str(), "net7");
    drop(netd);
    for change in ["net7 down", "net7 name net8", "net8 up"] {
        pod.ip(&format!("link set {change}"));
    }
    let netd = bed.start();
    netd.until("the new name", |node| {
        node.endpoint(&asked.key).is_ok_and(|(e, _)| e.wiring.ifname.as_str() == "net8")
    });
    netd.run(netd.node.leave(asked.key.clone())).unwrap();
    is_at(&netd, &asked, Stage::Created);
    assert_eq!(netd.detach(&asked.key).unwrap(), 1);
    netd.settle();
    assert!(netd.node.endpoint(&asked.key).is_err());
}

#[test]
fn netd_does_not_put_back_what_the_runtime_took_out() {
    let bed = Bed::new();
    let (pod, asked) = (Space::new(), created("one", &[]));
    let netd = bed.start();
    create(&netd, asked.clone()).unwrap();
    let joined = netd.run(netd.node.join(asked.key.clone(), pod.path())).unwrap();
    move_into(&bed, &pod, &joined, "eth0");
    is_at(&netd, &asked, Stage::Placed);
    // A disconnect that netd did not hear of.
    drop(netd);
    let waiting = &joined.wiring.ifname;
    pod.ip("link set eth0 down");
    pod.ip(&format!("link set eth0 name {waiting}"));
    pod.ip(&format!("link set {waiting} netns {}", bed.host.path().display()));
    let netd = bed.start();
    is_at(&netd, &asked, Stage::Created);
    assert!(!pod.ip("-o link").contains("eth0"));
    netd.detach(&asked.key).unwrap();
    netd.settle();
}

#[test]
fn reserved_addresses_are_taken_over_given_back_and_collected() {
    let mut bed = Bed::new();
    let netd = bed.start();
    let subnet = "10.99.0.0/29".parse().unwrap();
    let reserve = |netd: &Process, wanted: Option<&str>| {
        let wanted = wanted.map(|ip| ip.parse::<IpAddr>().unwrap());
        netd.run(netd.node.reserve_address(subnet, wanted))
    };
    let hold = reserve(&netd, Some("10.99.0.4")).unwrap();
    assert_eq!(hold.address.to_string(), "10.99.0.4/32", "routed: the address alone");
    assert!(matches!(reserve(&netd, Some("10.99.0.4")), Err(Error::Ipam { .. })));
    let small = |name: &str| AttachSpec {
        network: "small".parse().unwrap(),
        ..created(name, &["10.99.0.4"])
    };
    drop(netd);
    // The reservation outlives a crash, and so does the endpoint that used it.
    let netd = bed.start();
    create(&netd, small("one")).unwrap();
    assert!(create(&netd, small("two")).is_err(), "it has one owner");
    drop(netd);
    let netd = bed.start();
    netd.detach(&small("one").key).unwrap();
    netd.settle();
    assert!(reserve(&netd, Some("10.99.0.4")).is_err(), "held until it is released");
    let ip = "10.99.0.4".parse().unwrap();
    netd.run(netd.node.release_address(ip)).unwrap();
    netd.run(netd.node.release_address(ip)).unwrap();
    reserve(&netd, Some("10.99.0.4")).unwrap();
    drop(netd);
    bed.grace = "0s";
    let netd = bed.start();
    netd.until("what is never used is collected", |node| {
        node.networks().iter().flat_map(|n| &n.pools).all(|pool| pool.used == 0)
    });
}

#[test]
fn host_ports_change_hands_all_or_none() {
    let bed = Bed::new();
    let netd = bed.start();
    let (one, two) = (created("one", &[]), created("two", &[]));
    let port = |host_port| netd_domain::PortMapping {
        host_port,
        container_port: 80,
        protocol: Protocol::Tcp,
        host_ip: None,
    };
    create(&netd, one.clone()).unwrap();
    create(&netd, two.clone()).unwrap();
    let publish = |spec: &AttachSpec, ports: &[u16]| {
        let ports = ports.iter().map(|p| port(*p)).collect();
        netd.run(netd.node.publish(spec.key.clone(), ports, true))
    };
    publish(&one, &[8080, 8081]).unwrap();
    assert!(matches!(publish(&two, &[9090, 8080]), Err(Error::PortTaken { .. })));
    publish(&one, &[8081]).unwrap();
    publish(&two, &[9090, 8080]).unwrap();
    publish(&one, &[]).unwrap();
    publish(&two, &[8081]).unwrap();
    for spec in [one, two] {
        netd.detach(&spec.key).unwrap();
    }
    netd.settle();
}

#[test]
fn an_endpoint_of_another_source_counts_as_missing() {
    let bed = Bed::new();
    let netd = bed.start();
    let spec = AttachSpec { source: "docker/n1".into(), ..created("one", &[]) };
    create(&netd, spec.clone()).unwrap();
    let by = |source: &str| EndpointRef { key: spec.key.clone(), source: Some(source.into()) };
    let path = Space::new().path();
    for other in ["nri", "dock", "docker/n", "docker/n1/x"] {
        let joined = netd.run(netd.node.join(by(other), path.clone()));
        assert!(matches!(joined, Err(Error::NoEndpoint(_))), "{other}: {joined:?}");
        let published = netd.run(netd.node.publish(by(other), Vec::new(), true));
        assert!(matches!(published, Err(Error::NoEndpoint(_))), "{other}: {published:?}");
        netd.run(netd.node.leave(by(other))).unwrap();
        let sandbox = spec.key.sandbox.clone();
        let detach = netd.node.detach_of_source(sandbox, None, now_boot(), other.into());
        assert_eq!(netd.run(detach).unwrap(), 0, "{other}");
    }
    let (endpoint, _) = netd.node.endpoint(&spec.key).unwrap();
    assert_eq!(stage(&endpoint), Stage::Created);
    for own in ["docker", "docker/n1"] {
        netd.run(netd.node.publish(by(own), Vec::new(), true)).unwrap();
    }
    let sandbox = spec.key.sandbox.clone();
    let detach = netd.node.detach_of_source(sandbox.clone(), None, now_boot(), "docker".into());
    assert_eq!(netd.run(detach).unwrap(), 1);
    netd.settle();
    // There was none, so nothing is recorded that would refuse an attach issued earlier.
    let issued_at = now_boot();
    let detach = netd.node.detach_of_source(sandbox, None, now_boot(), "docker".into());
    assert_eq!(netd.run(detach).unwrap(), 0);
    create(&netd, AttachSpec { issued_at, ..spec }).unwrap();
}
