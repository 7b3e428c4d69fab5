//! Networks: flags, sharing, several a container.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use testbed::{
    Sandbox,
    net::probe::{self, Mirror},
};

use super::stack::Stack;

/// Docker's own IPAM, everything given.
pub(crate) fn flags(stack: &mut Stack) -> Result<()> {
    let flags = [
        "--subnet",
        "10.66.0.0/24",
        "--ip-range",
        "10.66.0.128/25",
        "--gateway",
        "10.66.0.254",
        "--aux-address",
        "router=10.66.0.129",
        "--ipv6",
        "--subnet",
        "fd00:66::/64",
        "--internal",
        "-o",
        "netd.mtu=1400",
        "-o",
        "netd.bridge=brtest",
    ];
    stack.create("inner", &flags)?;
    let static_flags = [
        "--network",
        "inner",
        "--ip",
        "10.66.0.200",
        "--ip6",
        "fd00:66::c8",
        "--mac-address",
        "02:11:22:33:44:55",
    ];
    let one = stack.docker.container(&static_flags)?;
    let two = stack.docker.container(&["--network", "inner"])?;
    let shown =
        one.net.sh("ip -o link show eth0; ip -o address show eth0; ip route; ip -6 route")?;
    for part in ["mtu 1400", "02:11:22:33:44:55", "10.66.0.200/24", "fd00:66::c8/64"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    let out = one.net.sh("ip route show default; ip -6 route show default")?;
    ensure!(out.is_empty(), "an internal network leads nowhere: {out}");
    let told = stack.docker.addresses(&one.id, "inner")?;
    ensure!(told == ["10.66.0.200".parse::<IpAddr>()?, "fd00:66::c8".parse()?], "{told:?}");
    let range: IpAddr = *stack.docker.addresses(&two.id, "inner")?.first().context("none")?;
    ensure!(range > IpAddr::from([10, 66, 0, 127]), "{range} is not of the range");
    let _mirror = Mirror::serve(&two.net, 7000)?;
    ensure!(probe::tcp(&one.net, range, 7000)? == told[0]);
    stack.host.net.sh("ip -o address show dev brtest | grep -q 10.66.0.254/24")?;
    let network = stack.docker.inspect("inner")?;
    let container = &network["Containers"][&one.id];
    ensure!(container["IPv4Address"] == "10.66.0.200/24", "{network}");
    ensure!(container["MacAddress"] == "02:11:22:33:44:55", "{network}");
    stack.docker.remove(&[&one.id, &two.id])?;
    stack.remove_networks(&["inner"])
}

/// As README says it: a network of both families, shared without `--ipv6`.
pub(crate) fn families_asked_for(stack: &mut Stack) -> Result<()> {
    let driver = stack.plugin.driver.clone();
    let option = "netd.network=default";
    let create = ["network", "create", "-d", &driver, "-o", option];
    let ipam = ["--ipam-driver", driver.as_str(), "--ipam-opt", option];
    let name = ["--subnet", "10.88.0.0/16", "four"];
    stack.docker.run(&[&create[..], &ipam, &name].concat())?;
    for flags in [&["--network", "four"][..], &["--network", "four", "--ip", "10.88.7.7"]] {
        let container = stack.docker.container(flags)?;
        let told = stack.docker.addresses(&container.id, "four")?;
        ensure!(told.len() == 1 && told[0].is_ipv4(), "{told:?}");
        let shown = container.net.sh("ip -o -6 address show dev eth0 scope global")?;
        ensure!(shown.is_empty(), "nobody asked for {shown}");
        let endpoints = stack.netd.endpoints()?;
        ensure!(endpoints.iter().all(|e| e.addresses.len() == 1), "{endpoints:?}");
        probe::ping(&stack.host.net, told[0])?;
        stack.docker.remove(&[&container.id])?;
    }
    stack.remove_networks(&["four"])
}

/// The network `default`, with a pod in it.
pub(crate) fn shared_with_pods(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &["10.88.0.0/16", "fd00:88::/64"])?;
    let pod = Sandbox::attached(&stack.host, "pod")?;
    let container = stack.docker.container(&["--network", "shared"])?;
    let own = stack.docker.addresses(&container.id, "shared")?;
    let _pod = Mirror::serve(&pod.net, 7000)?;
    let _container = Mirror::serve(&container.net, 7000)?;
    let _outside = Mirror::serve(&stack.outside.net, 7000)?;
    ensure!(own.len() == 2 && pod.ips.len() == 2, "{own:?} {:?}", pod.ips);
    for (own, other) in own.iter().zip(&pod.ips) {
        ensure!(own != other, "one address twice");
        ensure!(probe::tcp(&container.net, *other, 7000)? == *own);
        ensure!(probe::tcp(&pod.net, *own, 7000)? == *other);
        ensure!(probe::udp(&stack.host.net, *own, 7000).is_ok());
    }
    // Outside, both are hidden behind the host.
    let seen = probe::tcp(&container.net, stack.outside.v4.into(), 7000)?;
    ensure!(seen == IpAddr::from(stack.host.v4), "{seen}");
    let endpoints = stack.netd.endpoints()?;
    let ours = endpoints.iter().find(|e| e.source.starts_with("docker/")).context("none")?;
    ensure!(ours.network == "default" && ours.sandbox_interface == "eth0", "{ours:?}");
    // An address that the pod has can't be had, and leaves nothing.
    let taken = pod.ips.first().context("no address")?.to_string();
    let said = stack.docker.refusal(&[
        "run",
        "--rm",
        "--network",
        "shared",
        "--ip",
        &taken,
        "test:1",
        "true",
    ])?;
    ensure!(said.contains("is in use"), "{said}");
    stack.docker.remove(&[&container.id])?;
    stack.remove_networks(&["shared"])?;
    pod.call("DEL").execute(&stack.host)?.ok()?;
    ensure!(
        stack
            .netd
            .networks()?
            .iter()
            .any(|n| n.network.as_ref().is_some_and(|n| n.name == "default"))
    );
    Ok(())
}

/// Addresses alone, a link-local next hop.
pub(crate) fn routed(stack: &mut Stack) -> Result<()> {
    stack.share("routed", "rt", &["10.99.0.0/16", "fd00:99::/64"])?;
    let one = stack.docker.container(&["--network", "routed", "-p", "8082:7000"])?;
    let two = stack.docker.container(&["--network", "routed"])?;
    stack.settled(2)?;
    let own = stack.docker.addresses(&one.id, "routed")?;
    let other = stack.docker.addresses(&two.id, "routed")?;
    let shown = one.net.sh("ip -o address show eth0; ip route; ip -6 route")?;
    for part in ["10.99.0.", "/32", "/128", "default via 169.254.1.1", "default via fe80::1"] {
        ensure!(shown.contains(part), "no {part} in {shown}");
    }
    let (_one, _two) = (Mirror::serve(&one.net, 7000)?, Mirror::serve(&two.net, 7000)?);
    for (own, other) in own.iter().zip(&other) {
        ensure!(probe::tcp(&one.net, *other, 7000)? == *own, "{own} to {other}");
        ensure!(probe::tcp(&two.net, *own, 7000)? == *other, "{other} to {own}");
    }
    let client = IpAddr::from(stack.outside.v4);
    ensure!(probe::tcp(&stack.outside.net, stack.host.v4.into(), 8082)? == client);
    ensure!(probe::tcp(&stack.host.net, [127, 0, 0, 1].into(), 8082).is_ok(), "from 127.0.0.1");
    stack.docker.remove(&[&one.id, &two.id])?;
    stack.remove_networks(&["routed"])
}

pub(crate) fn refusals(stack: &mut Stack) -> Result<()> {
    let driver = stack.plugin.driver.clone();
    let create = |flags: &[&str]| {
        let mut all = vec!["network", "create", "-d", driver.as_str()];
        all.extend(flags);
        all.push("bad");
        stack.docker.refusal(&all)
    };
    for (flags, word) in [
        (vec!["-o", "mtu=1400"], "there is no such option"),
        (vec!["-o", "netd.driver=macvlan"], "macvlan"),
        (vec!["-o", "netd.driver=routed"], "--ipam-driver netd"),
        (vec!["-o", "netd.network=nothing"], "nothing"),
        (vec!["--subnet", "10.88.7.0/24"], "10.88.0.0/16"),
        (vec!["--subnet", "10.88.0.0/16", "-o", "netd.network=rt"], "10.99.0.0/16"),
        (vec!["--ipam-driver", driver.as_str(), "--ipam-opt", "netd.network=nothing"], "nothing"),
        (vec!["--ipam-driver", driver.as_str(), "--ipam-opt", "pool=x"], "netd.network"),
        (vec!["--subnet", "10.67.0.0/24", "-o", "netd.mtu=100"], "mtu"),
        (vec!["--subnet", "10.67.0.0/24", "-o", "netd.bridge=eth0"], "eth0"),
    ] {
        let said = create(&flags)?;
        ensure!(said.contains(word), "{flags:?}: no {word} in {said}");
    }
    // Without a subnet on a dockerd that takes no pool that the host has a route to.
    let option = "netd.network=default";
    let made = stack.create_with_ipam("default-pool", &["--ipam-opt", option, "-o", option]);
    match made {
        Ok(_) => stack.remove_networks(&["default-pool"]),
        Err(error) => {
            ensure!(error.to_string().contains("--subnet 10.88.0.0/16"), "{error}");
            Ok(())
        }
    }
}

/// Several networks, the gateway moves with them.
pub(crate) fn connect_and_disconnect(stack: &mut Stack) -> Result<()> {
    stack.create_with_ipam("first", &[])?;
    stack.create_with_ipam(
        "second",
        &["--subnet", "10.71.0.0/24", "-o", "netd.pool=10.71.0.128/25"],
    )?;
    let one = stack.docker.container(&["--network", "first", "-p", "8083:7000"])?;
    let two = stack.docker.container(&["--network", "second"])?;
    let to = *stack.docker.addresses(&two.id, "second")?.first().context("none")?;
    ensure!(to > IpAddr::from([10, 71, 0, 127]), "{to} is not of netd.pool");
    let (_one, _two) = (Mirror::serve(&one.net, 7000)?, Mirror::serve(&two.net, 7000)?);
    stack.docker.run(&["network", "connect", "--ip", "10.71.0.200", "second", &one.id])?;
    ensure!(
        probe::tcp(&one.net, to, 7000)? == IpAddr::from([10, 71, 0, 200]),
        "the second network"
    );
    let interfaces = one.net.sh("ip -o -4 address show")?;
    ensure!(interfaces.contains("eth1") && interfaces.contains("10.71.0.200/24"), "{interfaces}");
    // A published port goes with the gateway endpoint.
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8083)?;
    stack.docker.run(&["network", "disconnect", "first", &one.id])?;
    let routes = one.net.sh("ip route")?;
    ensure!(routes.contains("default via 10.71.0.1"), "{routes}");
    let client = probe::tcp(&stack.outside.net, stack.host.v4.into(), 8083)?;
    ensure!(client == IpAddr::from(stack.outside.v4), "{client}");
    ensure!(one.net.sh("ip -o link")?.lines().count() == 2, "its interface is gone");
    stack.settled(2)?;
    stack.docker.remove(&[&one.id, &two.id])?;
    // `prune` takes unused networks, netd's with them.
    stack.docker.run(&["network", "prune", "-f"]).map(drop)
}
