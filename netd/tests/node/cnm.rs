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
fn with_an_address_of_one_family_it_gets_none_of_the_other() {
    let bed = Bed::new();
    let netd = bed.start();
    let both = create(&netd, created("both", &[])).unwrap();
    assert_eq!(both.ips().count(), 2, "the network has both families");
    for (name, address) in [("four", "10.88.0.77"), ("six", "fd00:88::77")] {
        let one = create(&netd, created(name, &[address])).unwrap();
        let ips: Vec<IpAddr> = one.ips().collect();
        assert_eq!(ips, [address.parse::<IpAddr>().unwrap()]);
        let routes = one.runtime_placed.as_ref().unwrap().routes.iter();
        let of_family = |ip: &IpAddr| ip.is_ipv4() == ips[0].is_ipv4();
        assert!(routes.filter_map(|r| r.gateway).all(|gateway| of_family(&gateway)));
    }
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

/// Docker's own drivers with netd as IPAM driver: no endpoint of netd's ever has the address.
#[test]
fn addresses_for_other_programs_are_kept_until_they_are_released() {
    let mut bed = Bed::new();
    bed.grace = "0s";
    let mut netd = bed.start();
    let subnet = "10.67.0.0/29".parse().unwrap();
    let reserve = |netd: &Process, wanted: Option<&str>| {
        let wanted = wanted.map(|ip| ip.parse::<IpAddr>().unwrap());
        netd.run(netd.node.reserve_external_address(subnet, subnet, wanted))
    };
    let mut given = vec![reserve(&netd, Some("10.67.0.1")).unwrap().to_string()];
    given.push(reserve(&netd, Some("10.67.0.4")).unwrap().to_string());
    for _ in 0..2 {
        drop(netd);
        netd = bed.start();
        for taken in ["10.67.0.1", "10.67.0.4"] {
            let refused = reserve(&netd, Some(taken));
            assert!(matches!(refused, Err(Error::External { .. })), "{refused:?}");
        }
        given.push(reserve(&netd, None).unwrap().to_string());
    }
    assert_eq!(given, ["10.67.0.1/29", "10.67.0.4/29", "10.67.0.2/29", "10.67.0.3/29"]);
    assert_eq!(netd.node.external_pools(), [(subnet, 4)]);
    for overlapping in ["10.67.0.0/24", "10.67.0.4/30", "10.88.0.0/28"] {
        let other = overlapping.parse().unwrap();
        let refused = netd.run(netd.node.reserve_external_address(other, other, None));
        assert!(matches!(refused, Err(Error::NetworkExists(_))), "{overlapping}: {refused:?}");
    }
    // A store that fails reserves nothing, and frees nothing.
    bed.faults.after(0, 1);
    reserve(&netd, Some("10.67.0.6")).unwrap_err();
    let ip: IpAddr = "10.67.0.4".parse().unwrap();
    bed.faults.after(0, 1);
    netd.run(netd.node.release_address(ip)).unwrap_err();
    reserve(&netd, Some("10.67.0.4")).unwrap_err();
    for ip in ["10.67.0.4", "10.67.0.4", "10.67.0.1", "10.67.0.2", "10.67.0.3"] {
        netd.run(netd.node.release_address(ip.parse().unwrap())).unwrap();
    }
    assert_eq!(netd.node.external_pools(), []);
    drop(netd);
    assert_eq!(bed.start().node.external_pools(), []);
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
