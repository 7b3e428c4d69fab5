//! Networks that can't be, and those that can.

use netd::node::Error;
use netd_domain::{Network, Pool, network::NetworkOptions};
use netd_store::keys;

use super::{
    audit::audit,
    bed::{Bed, Process, key, spec},
    space::Space,
};

fn network(name: &str, subnet: &str, bridge: &str) -> Network {
    let pool = Pool::new(subnet.parse().unwrap(), None, (None, None), vec![]).unwrap();
    let options = NetworkOptions { bridge: Some(bridge.parse().unwrap()), ..Default::default() };
    Network::new(name.parse().unwrap(), vec![pool], options).unwrap()
}

#[test]
fn a_network_on_the_bridge_of_another_program_is_refused_and_not_recorded() {
    let bed = Bed::new();
    let netd = bed.start();
    bed.host.ip("link add taken0 type ifb");
    bed.host.ip("link add taken1 type bridge");
    for bridge in ["taken0", "taken1"] {
        let before = bed.host.ip(&format!("-d addr show {bridge}"));
        let refused =
            netd.run(netd.node.create_network(network("blue", "10.1.0.0/24", bridge), false));
        assert!(matches!(refused, Err(Error::NetworkExists(_))), "{refused:?}");
        assert!(netd.node.network(&"blue".parse().unwrap()).is_err());
        let key = keys::network(&"blue".parse().unwrap());
        assert_eq!(netd.run(netd.node.store().get(&key)).unwrap(), None);
        assert_eq!(bed.host.ip(&format!("-d addr show {bridge}")), before);
    }
    assert_eq!(netd.node.health().ready(), Ok(()));
}

#[test]
fn a_network_is_there_or_not_whatever_fails_and_its_making_is_no_drift() {
    let bed = Bed::new();
    let netd = bed.start();
    let name = "blue".parse().unwrap();
    let blue = || network("blue", "10.1.0.0/24", "blue0");
    bed.faults.after(0, 1);
    netd.run(netd.node.create_network(blue(), false)).unwrap_err();
    assert!(netd.node.network(&name).is_err());
    netd.run(netd.node.create_network(blue(), false)).unwrap();
    bed.faults.after(0, 1);
    netd.run(netd.node.delete_network(&name)).unwrap_err();
    assert!(netd.node.network(&name).is_ok());
    netd.until("the bridge is back", |_| bed.host.run("ip", "link show blue0").is_ok());
    netd.run(netd.node.delete_network(&name)).unwrap();
    bed.host.run("ip", "link show blue0").unwrap_err();
    for kind in ["link", "address", "firewall", "sysctl"] {
        assert_eq!(netd.node.metrics().drift(kind), 0, "{kind}");
    }
    bed.host.ip("link del cni0");
    netd.until("drift is counted", |node| node.metrics().drift("link") > 0);
}

/// The gateway's address would land on the bridge, and the host would be cut off.
#[test]
fn a_pool_that_is_a_network_of_the_host_itself_is_refused_unless_forced() {
    let bed = Bed::new();
    let netd = bed.start();
    bed.host.ip("link add lan0 type ifb");
    bed.host.ip("link set lan0 up");
    bed.host.ip("address add 10.1.7.9/16 dev lan0");
    bed.host.ip("route add 10.7.0.0/16 via 10.1.0.1");
    let name = "blue".parse().unwrap();
    let create = |pool: &str, force: bool| {
        netd.run(netd.node.create_network(network("blue", pool, "blue0"), force))
    };
    for pool in ["10.1.0.0/16", "10.1.7.0/24", "10.1.9.0/24", "10.0.0.0/10"] {
        let refused = create(pool, false).unwrap_err().to_string();
        assert!(refused.contains("pools[0].subnet") && refused.contains("lan0"), "{refused}");
        assert!(netd.node.network(&name).is_err());
    }
    create("10.1.9.0/24", true).unwrap();
    netd.run(netd.node.delete_network(&name)).unwrap();
    // What a gateway leads to is told only; netd's own bridges don't count.
    for pool in ["10.7.7.0/24", "10.7.0.0/16"] {
        create(pool, false).unwrap();
        netd.run(netd.node.delete_network(&name)).unwrap();
    }
    let hosts = netd.run(netd.node.host_networks()).unwrap();
    assert!(hosts.iter().all(|host| host.device != "cni0" && host.device != "lo"), "{hosts:?}");
    assert!(hosts.iter().any(|host| host.device == "lan0" && host.routed), "{hosts:?}");
}

/// Each time as configured; `lan` has a pool of the host's LAN.
fn with_lan(extra: &str) -> String {
    format!(
        "[[network]]\nname = \"default\"\n[[network.pool]]\nsubnet = \"10.88.0.0/24\"\n\
         [[network]]\nname = \"lan\"\nbridge = \"lanbr\"\npod_namespaces = [\"*\"]\n{extra}\n\
         [[network.pool]]\nsubnet = \"10.1.9.0/24\"\n"
    )
}

#[test]
fn a_configured_pool_that_is_a_network_of_the_host_is_left_out_unless_allowed() {
    let mut bed = Bed::new();
    bed.host.ip("link add lan0 type ifb");
    bed.host.ip("link set lan0 up");
    bed.host.ip("address add 10.1.7.9/16 dev lan0");
    bed.networks = with_lan("");
    let (lan, other) = ("host-network/lan", Space::new());
    let netd = bed.start();
    let gateway = |bed: &Bed| bed.host.ip("-o address show").contains("10.1.9.1/24");
    assert!(!gateway(&bed), "the gateway's address is on the bridge");
    let why = netd.node.health().ready().unwrap_err();
    assert!(why.contains("10.1.9.0/24") && why.contains("allow_host_overlap"), "{why}");
    // Everything else works.
    netd.attach(spec(&key("s1", "eth0"), &other, "default")).unwrap();
    let pod = Space::new();
    let refused = netd.attach(spec(&key("s2", "eth0"), &pod, "lan")).unwrap_err();
    assert!(matches!(refused, Error::HostNetwork(_)), "{refused}");
    drop(netd);
    bed.networks = with_lan("allow_host_overlap = true");
    let netd = bed.start();
    assert_eq!((netd.node.health().ready(), gateway(&bed)), (Ok(()), true));
    netd.attach(spec(&key("s2", "eth0"), &pod, "lan")).unwrap();
    drop(netd);
    // As after an upgrade: what runs goes on, and is told.
    bed.networks = with_lan("");
    let netd = bed.start();
    assert_eq!((netd.node.health().ready(), gateway(&bed)), (Ok(()), true));
    netd.until("it is told", |node| {
        node.health().problem(lan).is_some_and(|why| why.contains("lan0"))
    });
    netd.run(netd.node.check(&key("s2", "eth0"), None, None)).unwrap();
    let more = Space::new();
    netd.attach(spec(&key("s3", "eth0"), &more, "lan")).unwrap();
    for name in ["s2", "s3"] {
        netd.detach(&key(name, "eth0")).unwrap();
    }
    netd.settle();
    drop(netd);
    // As after a reboot: nothing is in force any more. It is made once the host is elsewhere.
    bed.host.ip("link del lanbr");
    let netd = bed.start();
    assert!(netd.node.health().ready().is_err() && !gateway(&bed));
    bed.host.ip("address del 10.1.7.9/16 dev lan0");
    netd.until("it is made", |node| node.health().ready().is_ok());
    assert!(gateway(&bed));
    // An address that comes later is told, and nothing else happens.
    bed.host.ip("address add 10.1.7.9/16 dev lan0");
    netd.until("it is told", |node| node.health().problem(lan).is_some());
    assert_eq!((netd.node.health().ready(), gateway(&bed)), (Ok(()), true));
    netd.attach(spec(&key("s2", "eth0"), &pod, "lan")).unwrap();
    bed.host.ip("address del 10.1.7.9/16 dev lan0");
    netd.until("it is over", |node| node.health().problem(lan).is_none());
}

/// `netd network create --force` counts after a reboot, too.
#[test]
fn a_forced_network_stays_forced() {
    let bed = Bed::new();
    bed.host.ip("link add lan0 type ifb");
    bed.host.ip("link set lan0 up");
    bed.host.ip("address add 10.1.7.9/16 dev lan0");
    let netd = bed.start();
    let create = |netd: &Process| {
        netd.run(netd.node.create_network(network("blue", "10.1.9.0/24", "blue0"), true))
    };
    create(&netd).unwrap();
    create(&netd).unwrap();
    drop(netd);
    bed.host.ip("link del blue0");
    let netd = bed.start();
    assert_eq!(netd.node.health().ready(), Ok(()));
    assert!(bed.host.ip("-o address show blue0").contains("10.1.9.1/24"));
}

#[test]
fn a_pool_whose_addresses_another_program_assigns_is_refused() {
    let bed = Bed::new();
    let netd = bed.start();
    let subnet = "10.67.0.0/24".parse().unwrap();
    let reserved = netd.run(netd.node.reserve_external_address(subnet, subnet, None)).unwrap();
    for pool in ["10.67.0.0/24", "10.67.0.128/25", "10.67.0.0/16"] {
        let create = netd.node.create_network(network("blue", pool, "blue0"), true);
        let refused = netd.run(create).unwrap_err();
        assert!(matches!(refused, Error::NetworkExists(_)), "{pool}: {refused}");
    }
    netd.run(netd.node.release_address(reserved.addr())).unwrap();
    netd.run(netd.node.create_network(network("blue", "10.67.0.0/24", "blue0"), true)).unwrap();
}

/// Also when the configuration has it from the next start on.
#[test]
fn a_configured_pool_whose_addresses_another_program_assigns_is_left_out() {
    let mut bed = Bed::new();
    let netd = bed.start();
    let subnet = "10.1.9.0/24".parse().unwrap();
    let reserved = netd.run(netd.node.reserve_external_address(subnet, subnet, None)).unwrap();
    drop(netd);
    bed.networks = with_lan("");
    let netd = bed.start();
    let why = netd.node.health().ready().unwrap_err();
    assert!(why.contains("10.1.9.0/24") && why.contains("Docker"), "{why}");
    assert!(!bed.host.ip("link show").contains("lanbr"));
    assert_eq!(netd.node.external_pools(), [(subnet, 1)]);
    netd.run(netd.node.release_address(reserved.addr())).unwrap();
    drop(netd);
    let netd = bed.start();
    assert_eq!(netd.node.health().ready(), Ok(()));
    assert!(bed.host.ip("-o address show lanbr").contains("10.1.9.1/24"));
}

#[test]
fn networks_created_at_the_same_time_do_not_overlap() {
    let bed = Bed::new();
    let netd = bed.start();
    let create = |n: usize| {
        let node = netd.node.clone();
        let network = network(&format!("n{n}"), "10.1.0.0/24", &format!("br{n}"));
        netd.spawn(async move { node.create_network(network, false).await.is_ok() })
    };
    let all: Vec<_> = (0..8).map(create).collect();
    let made = all.into_iter().map(|work| netd.run(work).unwrap());
    assert_eq!(made.filter(|made| *made).count(), 1);
}

#[test]
fn a_configured_network_that_overlaps_with_a_stored_one_is_not_taken_and_says_so() {
    let mut bed = Bed::new();
    let pod = Space::new();
    let netd = bed.start();
    netd.attach(spec(&key("s1", "eth0"), &pod, "small")).unwrap();
    drop(netd);
    let pools = |default: &str| {
        format!("[[network]]\nname = \"default\"\n[[network.pool]]\nsubnet = \"{default}\"\n")
    };
    bed.networks = pools("10.99.0.0/16");
    let netd = bed.start();
    let parts = netd.node.health().parts();
    let said: Vec<_> = parts.iter().filter_map(|p| p.problem.as_deref()).collect();
    assert!(said.len() == 1 && said[0].contains("10.99.0.0/29"), "{said:?}");
    let default = netd.node.network(&"default".parse().unwrap()).unwrap();
    assert_eq!(default.state.network.pools[0].subnet.to_string(), "10.88.0.0/24");
    netd.run(netd.node.check(&key("s1", "eth0"), None, None)).unwrap();
    assert_eq!(audit(&bed, &netd).len(), 1);
    drop(netd);
    bed.networks = pools("10.77.0.0/16");
    let netd = bed.start();
    assert!(netd.node.health().parts().iter().all(|p| p.problem.is_none()));
}

#[test]
fn an_endpoint_follows_its_networks_mtu_unless_it_asked_for_one() {
    let bed = Bed::new();
    let (follows, fixed) = (Space::new(), Space::new());
    let netd = bed.start();
    netd.attach(spec(&key("follows", "eth0"), &follows, "default")).unwrap();
    let mut small = spec(&key("fixed", "eth0"), &fixed, "default");
    small.mtu = Some(1300);
    netd.attach(small).unwrap();
    drop(netd);
    bed.host.ip("link add up0 type bridge");
    bed.host.ip("link set up0 mtu 1400");
    bed.host.ip("addr add 192.0.2.2/24 dev up0");
    bed.host.ip("link set up0 up");
    bed.host.ip("route add default via 192.0.2.1");
    // While no netd was running; and again while one is, with a store that fails at first.
    let netd = bed.start();
    let mtu = |pod: &Space| {
        pod.ip("link show eth0").split(' ').skip_while(|w| *w != "mtu").nth(1).unwrap().to_owned()
    };
    netd.until("1400", |_| mtu(&follows) == "1400");
    bed.faults.after(0, 1);
    bed.host.ip("link set up0 mtu 1350");
    netd.until("1350", |_| mtu(&follows) == "1350");
    assert_eq!(mtu(&fixed), "1300");
    assert_eq!(netd.node.metrics().drift("link"), 0);
}
