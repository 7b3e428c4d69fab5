//! `-p` and `-P`.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use testbed::net::probe::{self, Mirror};

use super::stack::Stack;

pub(crate) fn host_ports(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &["10.88.0.0/16", "fd00:88::/64"])?;
    let flags = [
        "--network",
        "shared",
        "-p",
        "8080:7000",
        "-p",
        "8080:7000/udp",
        "-p",
        "127.0.0.1:8085:7000",
    ];
    let one = stack.docker.container(&flags)?;
    let _mirror = Mirror::serve(&one.net, 7000)?;
    for (client, host) in [
        (IpAddr::from(stack.outside.v4), IpAddr::from(stack.host.v4)),
        (stack.outside.v6.into(), stack.host.v6.into()),
    ] {
        ensure!(probe::tcp(&stack.outside.net, host, 8080)? == client, "the client stays visible");
        ensure!(probe::udp(&stack.outside.net, host, 8080)? == client);
    }
    probe::tcp(&stack.host.net, [127, 0, 0, 1].into(), 8085).context("on 127.0.0.1")?;
    ensure!(probe::tcp(&stack.outside.net, stack.host.v4.into(), 8085).is_err(), "not outside");
    // A port has one owner; the second container leaves nothing behind.
    let said = stack.docker.refusal(&[
        "run",
        "--network",
        "shared",
        "--name",
        "second",
        "-p",
        "8080:80",
        "-d",
        "test:1",
        "/bin/sleep",
        "1000",
    ])?;
    ensure!(said.contains("8080/tcp is held by"), "{said}");
    stack.docker.remove(&["second"])?;
    stack.docker.run(&["stop", "-t", "0", &one.id])?;
    ensure!(probe::tcp(&stack.outside.net, stack.host.v4.into(), 8080).is_err(), "after stop");
    stack.docker.run(&["start", &one.id])?;
    let _again = Mirror::serve(&stack.docker.namespace(&one.id)?, 7000)?;
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8080).context("after start")?;
    stack.docker.remove(&[&one.id])?;
    stack.remove_networks(&["shared"])
}

pub(crate) fn chosen_ports(stack: &mut Stack) -> Result<()> {
    stack.create_with_ipam("ports", &["--subnet", "10.72.0.0/24"])?;
    let flags = ["--network", "ports", "-p", "7000", "-p", "9000-9003:7000"];
    let one = stack.docker.container(&flags)?;
    let two = stack.docker.container(&flags)?;
    let (_one, _two) = (Mirror::serve(&one.net, 7000)?, Mirror::serve(&two.net, 7000)?);
    let endpoints = stack.netd.endpoints()?;
    let ports: Vec<u32> =
        endpoints.iter().flat_map(|e| e.port_mappings.iter().map(|p| p.host_port)).collect();
    let mut unique = ports.clone();
    unique.sort_unstable();
    unique.dedup();
    ensure!(ports.len() == 4 && unique.len() == 4, "{ports:?}");
    for port in ports {
        ensure!((9000..=9003).contains(&port) || (32768..=60999).contains(&port), "{port}");
        let port = u16::try_from(port)?;
        probe::tcp(&stack.outside.net, stack.host.v4.into(), port)?;
    }
    // Others reach what is published, and nothing else, unless the network's creator said so.
    stack.create_with_ipam(
        "open",
        &["--subnet", "10.73.0.0/24", "-o", "netd.published_only=false"],
    )?;
    let three = stack.docker.container(&["--network", "open"])?;
    let _three = Mirror::serve(&three.net, 7000)?;
    stack.outside.net.sh(&format!(
        "ip route add 10.72.0.0/24 via {0}; ip route add 10.73.0.0/24 via {0}",
        stack.host.v4
    ))?;
    for endpoint in stack.netd.endpoints()? {
        let address = endpoint.addresses.first().context("no address")?.address.clone();
        let ip: IpAddr = address.split('/').next().unwrap_or_default().parse()?;
        let reached = probe::tcp(&stack.outside.net, ip, 7000).is_ok();
        ensure!(reached == address.starts_with("10.73."), "{address}: {reached}");
        probe::tcp(&stack.host.net, ip, 7000).context("from the host")?;
    }
    stack.outside.net.sh("ip route del 10.72.0.0/24; ip route del 10.73.0.0/24")?;
    stack.docker.remove(&[&one.id, &two.id, &three.id])?;
    stack.remove_networks(&["ports", "open"])
}
