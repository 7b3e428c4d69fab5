//! One example of each rule and each error.

use std::net::IpAddr;

use super::{ip, narrow, pool};
use crate::ipam::{Allocation, Family, IpamError, NetworkAllocator, PoolUsage};

fn dual() -> NetworkAllocator {
    NetworkAllocator::new(&[pool("10.1.0.0/29"), pool("fd00:1::/64")])
}

fn next(network: &mut NetworkAllocator) -> Vec<String> {
    network.allocate(&[]).unwrap().iter().map(|a| a.ip.to_string()).collect()
}

#[test]
fn each_family_of_the_network_gets_one_address_in_ascending_order() {
    let mut network = dual();
    assert_eq!(next(&mut network), ["10.1.0.2", "fd00:1::2"]);
    assert_eq!(next(&mut network), ["10.1.0.3", "fd00:1::3"]);
}

#[test]
fn a_part_of_a_subnet_gives_its_own_addresses_only() {
    let mut network = dual();
    let part = "10.1.0.4/31".parse().unwrap();
    let mut within = |wanted: Option<&str>| {
        network.allocate_within(part, wanted.map(ip)).map(|given| given.ip.to_string())
    };
    assert_eq!(within(None).unwrap(), "10.1.0.4");
    assert_eq!(within(Some("10.1.0.4")), Err(IpamError::Taken { ip: ip("10.1.0.4") }));
    assert_eq!(within(None).unwrap(), "10.1.0.5");
    assert!(matches!(within(None), Err(IpamError::PoolFull { .. })));
    assert!(matches!(within(Some("10.1.0.2")), Err(IpamError::NotInPool { .. })));
    assert!(network.release(ip("10.1.0.4")));
    assert_eq!(network.allocate_within(part, None).unwrap().ip, ip("10.1.0.4"), "a freed one");
    assert_eq!(next(&mut network), ["10.1.0.2", "fd00:1::2"], "the other family is untouched");
}

#[test]
fn a_freed_address_comes_after_all_fresh_ones_and_in_the_order_freed() {
    let mut network = NetworkAllocator::new(&[pool("10.1.0.0/29")]);
    for _ in 0..4 {
        network.allocate(&[]).unwrap();
    }
    assert!(network.release(ip("10.1.0.3")));
    assert!(network.release(ip("10.1.0.2")));
    assert!(!network.release(ip("10.1.0.2")), "releasing twice is no second release");
    assert_eq!(next(&mut network), ["10.1.0.6"]);
    assert_eq!(next(&mut network), ["10.1.0.3"]);
    assert_eq!(next(&mut network), ["10.1.0.2"]);
}

#[test]
fn a_fresh_address_of_a_later_pool_comes_before_a_freed_one() {
    let mut network = NetworkAllocator::new(&[pool("10.1.0.0/29"), pool("10.2.0.0/29")]);
    for _ in 0..5 {
        network.allocate(&[]).unwrap();
    }
    network.release(ip("10.1.0.2"));
    let got = network.allocate(&[]).unwrap();
    assert_eq!(got, [Allocation { ip: ip("10.2.0.2"), pool_index: 1 }]);
}

#[test]
fn a_restart_goes_on_after_the_last_address_and_keeps_the_order_of_freed_ones() {
    let pools = [pool("10.1.0.0/28")];
    let (used, freed) = ([ip("10.1.0.4")], [ip("10.1.0.7"), ip("10.1.0.3")]);
    let mut network = NetworkAllocator::restore(&pools, used, freed, &[ip("10.1.0.12")]);
    let rest: Vec<_> = (0..12).map(|_| next(&mut network).remove(0)).collect();
    let host = |s: &String| s.rsplit_once('.').unwrap().1.parse::<u8>().unwrap();
    let hosts: Vec<_> = rest.iter().map(host).collect();
    assert_eq!(hosts, [12, 13, 14, 2, 5, 6, 8, 9, 10, 11, 7, 3]);
}

#[test]
fn requested_addresses_are_given_and_the_other_family_is_filled() {
    let mut network = dual();
    let got = network.allocate(&[ip("fd00:1::77")]).unwrap();
    let ips: Vec<_> = got.iter().map(|a| (a.ip, a.pool_index)).collect();
    assert_eq!(ips, [(ip("10.1.0.2"), 0), (ip("fd00:1::77"), 1)]);
    // A static address does not move the place where allocation goes on.
    assert_eq!(next(&mut network), ["10.1.0.3", "fd00:1::2"]);
}

#[test]
fn a_failed_family_leaves_the_other_untouched() {
    let mut network = dual();
    let err = network.allocate(&[ip("fd00:1::1")]).unwrap_err();
    assert!(matches!(err, IpamError::IsGateway { .. }));
    assert_eq!(next(&mut network), ["10.1.0.2", "fd00:1::2"]);
}

#[test]
fn foreign_addresses_are_kept_as_used_and_break_nothing() {
    let odd = ["10.9.9.9", "10.1.0.1", "10.1.0.0", "fd00:1::1", "fe80::1"].map(ip);
    let pools = [pool("10.1.0.0/29")];
    let mut network = NetworkAllocator::restore(&pools, odd, odd, &odd);
    assert!(odd.iter().all(|ip| network.is_used(*ip)));
    assert_eq!(network.usage()[0].used, 0);
    let all: Vec<_> = (0..5).map(|_| next(&mut network).remove(0)).collect();
    assert_eq!(all.len(), 5);
    assert!(network.release(odd[1]) && !network.is_used(odd[1]));
    let err = network.allocate(&[odd[1]]).unwrap_err();
    assert!(matches!(err, IpamError::IsGateway { .. }), "a foreign address is not given out");
}

#[test]
fn a_full_pool_names_its_size_and_what_to_do() {
    let small = narrow("10.1.0.0/24", ("10.1.0.10", "10.1.0.13"), &["10.1.0.12/31"]);
    let mut network = NetworkAllocator::new(&[small, pool("fd00:1::/64")]);
    assert_eq!(next(&mut network)[0], "10.1.0.10");
    assert_eq!(next(&mut network)[0], "10.1.0.11");
    let err = network.allocate(&[]).unwrap_err();
    let usage = PoolUsage { subnet: "10.1.0.0/24".parse().unwrap(), size: 2, used: 2 };
    assert_eq!(err, IpamError::PoolFull { family: Family::V4, pools: vec![usage] });
    let text = err.to_string();
    assert!(text.contains("IPv4") && text.contains("10.1.0.0/24 (2 of 2 in use)"), "{text}");
    assert!(text.contains("delete endpoints"), "{text}");
    assert_eq!(network.usage()[1].used, 2, "no IPv6 address was taken");
}

#[test]
fn addresses_that_are_not_to_be_had_are_refused_with_the_reason() {
    let ranged = narrow("10.1.0.0/24", ("10.1.0.10", "10.1.0.200"), &["10.1.0.32/28"]);
    let mut network = NetworkAllocator::new(&[ranged, pool("10.2.0.0/24")]);
    network.allocate(&[ip("10.1.0.50")]).unwrap();
    for (request, words) in [
        ("10.1.0.50", "in use"),
        ("10.1.0.1", "gateway of 10.1.0.0/24"),
        ("10.1.0.0", "network address"),
        ("10.1.0.255", "broadcast address"),
        ("10.1.0.9", "outside the range 10.1.0.10 to 10.1.0.200"),
        ("10.1.0.40", "reserved range 10.1.0.32/28"),
        ("10.3.0.5", "10.1.0.0/24, 10.2.0.0/24"),
        ("fd00::5", "no IPv6 pool"),
        ("::ffff:10.1.0.60", "no IPv6 pool"),
    ] {
        let text = network.allocate(&[ip(request)]).unwrap_err().to_string();
        assert!(text.starts_with(request) && text.contains(words), "{request}: {text}");
        assert!(text.contains("request"), "says what to do: {text}");
    }
    assert_eq!(network.usage()[0].used, 1);
}

#[test]
fn errors_are_typed() {
    let mut network = dual();
    let v4: [IpAddr; 2] = [ip("10.1.0.2"), ip("10.1.0.3")];
    let twice = IpamError::DuplicateFamily { first: v4[0], second: v4[1] };
    assert_eq!(network.allocate(&v4), Err(twice.clone()));
    assert!(twice.to_string().contains("at most one address a family"));
    let none = NetworkAllocator::new(&[pool("10.1.0.0/29")]).allocate(&[ip("fd00::9")]);
    assert!(matches!(none, Err(IpamError::NoSuchFamily { .. })));
    assert!(matches!(network.allocate(&[ip("10.9.0.1")]), Err(IpamError::NotInPool { .. })));
    network.allocate(&[v4[0]]).unwrap();
    assert_eq!(network.allocate(&[v4[0]]), Err(IpamError::Taken { ip: v4[0] }));
}

#[test]
fn the_last_ipv6_address_is_given_out_and_the_anycast_one_is_not() {
    let mut network = NetworkAllocator::new(&[pool("fd00::/125")]);
    assert_eq!(network.usage()[0].size, 6);
    assert!(network.allocate(&[ip("fd00::7")]).is_ok());
    let err = network.allocate(&[ip("fd00::")]).unwrap_err();
    assert!(matches!(err, IpamError::Reserved { .. }));
}

#[test]
fn the_size_of_a_huge_pool_saturates() {
    let network = NetworkAllocator::new(&[pool("fd00::/16")]);
    assert_eq!(network.usage()[0].size, u64::MAX);
    assert!(network.contains(ip("fd00::1")) && !network.contains(ip("fc00::1")));
}

#[test]
fn a_wholly_reserved_pool_is_full_from_the_start() {
    let none = narrow("10.1.0.0/24", ("10.1.0.1", "10.1.0.254"), &["10.1.0.0/24"]);
    let err = NetworkAllocator::new(&[none]).allocate(&[]).unwrap_err();
    assert!(err.to_string().contains("0 of 0 in use"), "{err}");
}
