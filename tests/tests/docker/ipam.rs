//! netd as IPAM driver of networks that Docker's own drivers make.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, ensure};

use super::{order::remove_left, stack::Stack};

const SUBNET: &str = "10.67.0.0/28";

fn create(stack: &Stack, driver: &str, flags: &[&str], name: &str) -> Result<String> {
    let ipam = stack.plugin.driver.clone();
    let begin = ["network", "create", "-d", driver, "--ipam-driver", &ipam];
    stack.docker.run(&[&begin[..], flags, &[name]].concat())
}

fn refused(stack: &Stack, driver: &str, subnet: &str, name: &str) -> Result<String> {
    let ipam = stack.plugin.driver.clone();
    let begin = ["network", "create", "-d", driver, "--ipam-driver", &ipam];
    stack.docker.refusal(&[&begin[..], &["--subnet", subnet, name]].concat())
}

fn address(stack: &Stack, container: &str, network: &str) -> Result<IpAddr> {
    let all = stack.docker.addresses(container, network)?;
    all.first().copied().context("no address")
}

fn reserved(stack: &Stack) -> Result<Vec<(String, u64)>> {
    let list = stack.netd.list_networks()?;
    Ok(list.external_pools.into_iter().map(|pool| (pool.subnet, pool.used)).collect())
}

/// Every kind of request, over restarts of netd, the plugin and dockerd.
pub(crate) fn of_other_drivers(stack: &mut Stack) -> Result<()> {
    let flags = ["--subnet", SUBNET, "--gateway", "10.67.0.2", "--aux-address", "router=10.67.0.3"];
    create(stack, "bridge", &flags, "foreign")?;
    ensure!(reserved(stack)? == [(SUBNET.to_owned(), 2)], "{:?}", reserved(stack)?);
    let named = stack.docker.container(&["--network", "foreign", "--ip", "10.67.0.5"])?;
    ensure!(address(stack, &named.id, "foreign")? == IpAddr::from([10, 67, 0, 5]));
    let kept = [[10, 67, 0, 2], [10, 67, 0, 3], [10, 67, 0, 5]].map(IpAddr::from);
    let mut seen: BTreeSet<IpAddr> = kept.into();
    let mut containers = vec![named.id.clone()];
    for restart in ["nothing", "netd", "plugin", "dockerd"] {
        match restart {
            "netd" => {
                stack.netd.kill9()?;
                stack.netd.respawn()?;
                stack.netd.wait_ready()?;
            }
            "plugin" => {
                stack.plugin.service.kill9()?;
                stack.plugin.respawn()?;
            }
            "dockerd" => {
                stack.docker.kill9()?;
                stack.docker.restart()?;
            }
            _ => {}
        }
        for taken in &kept {
            let taken = taken.to_string();
            let run = ["run", "-d", "--network", "foreign", "--ip", &taken, "test:1", "true"];
            let said = stack.docker.refusal(&run)?;
            ensure!(said.contains("in use") || said.contains("already"), "{restart}: {said}");
        }
        let container = stack.docker.container(&["--network", "foreign"])?;
        let own = address(stack, &container.id, "foreign")?;
        ensure!(seen.insert(own), "after a restart of {restart}: {own} twice");
        containers.push(container.id);
    }
    // What is released can be had again.
    stack.docker.remove(&[&named.id])?;
    let again = stack.docker.container(&["--network", "foreign", "--ip", "10.67.0.5"])?;
    containers[0] = again.id;
    let ids: Vec<&str> = containers.iter().map(String::as_str).collect();
    stack.docker.remove(&ids)?;
    remove_left(stack)?;
    stack.remove_networks(&["foreign"])?;
    ensure!(reserved(stack)?.is_empty(), "{:?}", reserved(stack)?);
    Ok(())
}

/// The same subnet for two networks, whoever makes them; and creations that fail half-way.
pub(crate) fn one_owner(stack: &mut Stack) -> Result<()> {
    let netd = stack.plugin.driver.clone();
    create(stack, "bridge", &["--subnet", "10.67.0.0/24"], "foreign")?;
    for (driver, subnet) in
        [("bridge", "10.67.0.0/24"), ("bridge", "10.67.0.128/25"), (netd.as_str(), "10.67.0.0/24")]
    {
        let said = refused(stack, driver, subnet, "second")?;
        ensure!(said.contains("10.67.0."), "{driver} {subnet}: {said}");
        ensure!(reserved(stack)? == [("10.67.0.0/24".to_owned(), 1)], "{:?}", reserved(stack)?);
    }
    let said = refused(stack, "bridge", "10.88.7.0/24", "second")?;
    ensure!(said.contains("10.88.0.0/16"), "{said}");
    stack.remove_networks(&["foreign"])?;
    // netd's own driver takes over what dockerd has reserved, and a failure leaves nothing.
    let flags = ["--subnet", "10.67.0.0/24", "--aux-address", "router=10.67.0.9"];
    let bad = [&flags[..], &["-o", "netd.mtu=100"]].concat();
    ensure!(create(stack, &netd, &bad, "own").is_err(), "an MTU of 100");
    ensure!(reserved(stack)?.is_empty(), "{:?}", reserved(stack)?);
    create(stack, &netd, &flags, "own")?;
    ensure!(reserved(stack)?.is_empty(), "{:?}", reserved(stack)?);
    let run = ["run", "-d", "--network", "own", "--ip", "10.67.0.9", "test:1", "true"];
    stack.docker.refusal(&run)?;
    remove_left(stack)?;
    stack.remove_networks(&["own"])
}
