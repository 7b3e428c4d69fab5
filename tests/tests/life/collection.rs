//! Endpoints whose sandbox went without a DEL: collected, but never too early.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use netd_api::v1::{self, SynchronizeRequest};
use serde_json::json;
use testbed::{Sandbox, case, wait};

use crate::node::{GRACE, Node, SOON};

fn set(source: &str, sandboxes: &[&Sandbox]) -> SynchronizeRequest {
    let known = |sandbox: &&Sandbox| v1::Sandbox { id: sandbox.id.clone(), ..Default::default() };
    let sandboxes = sandboxes.iter().map(known).collect();
    SynchronizeRequest { source: source.to_owned(), sandboxes, ..Default::default() }
}

fn collected(node: &Node, pod: &Sandbox) -> Result<()> {
    wait::until(SOON, "the endpoint is collected", || {
        ensure!(!node.has(pod)?, "still there");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn an_endpoint_without_namespace_is_collected_after_the_grace_and_not_before() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (mut gone, stays) = (node.attached("gone")?, node.attached("stays")?);
        let address = gone.v4()?;
        let vanished = Instant::now();
        gone.vanish();
        while vanished.elapsed() < GRACE.mul_f32(0.7) {
            ensure!(node.has(&gone)?, "collected after {:?}", vanished.elapsed());
            wait::pause(Duration::from_millis(100));
        }
        collected(&node, &gone)?;
        ensure!(node.has(&stays)?, "its namespace is there");
        // The address is free: it can be asked for.
        wait::until(SOON, "the address is free", || {
            ensure!(node.netd.addresses_used()? == 2);
            Ok(())
        })?;
        let mut next = Sandbox::bare(&node.host, "next")?;
        next.config["runtimeConfig"] = json!({"ips": [address.to_string()]});
        next.add(&node.host)?;
        ensure!(next.v4()? == address);
        ensure!(node.netd.status()?.collected >= 1);
        next.del(&node.host)?;
        stays.del(&node.host)?;
        node.nothing_left()
    })
}

#[test]
fn a_sandbox_that_a_runtime_still_lists_is_not_collected() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (mut listed, mut other) = (node.attached("listed")?, node.attached("other")?);
        node.netd.synchronize(set("nri", &[&listed]))?;
        listed.vanish();
        other.vanish();
        collected(&node, &other)?;
        wait::pause(GRACE);
        ensure!(node.has(&listed)?, "a runtime lists it");
        // The newest set of a source counts.
        node.netd.synchronize(set("nri", &[]))?;
        collected(&node, &listed)?;
        node.nothing_left()
    })
}

#[test]
fn a_sandbox_missing_from_a_list_keeps_its_network_while_its_namespace_is_there() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.attached("pod")?;
        let answer = node.netd.synchronize(set("nri", &[]))?;
        ensure!((answer.known, answer.removed) == (0, 0), "{answer:?}");
        wait::pause(GRACE * 2);
        ensure!(node.has(&pod)?, "pods still being made are not in a runtime's list");
        pod.net.sh("ip -o link show eth0").map(drop)
    })
}

#[test]
fn collection_goes_on_after_a_crash_of_netd() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let mut pod = node.attached("pod")?;
        node.netd.kill9()?;
        pod.vanish();
        node.netd.restart()?;
        collected(&node, &pod)?;
        node.nothing_left()
    })
}

/// CNI GC of 1.1.0: what the configuration attached and is not valid any more.
#[test]
fn cni_gc_removes_only_what_its_own_configuration_attached() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (stale, valid) = (node.attached("stale")?, node.attached("valid")?);
        let mut other = Sandbox::bare(&node.host, "other")?;
        other.config["name"] = json!("another-configuration");
        other.add(&node.host)?;
        let by_hand = Sandbox::bare(&node.host, "by-hand")?;
        node.netd.attach(by_hand.request())?;
        let mut call = valid.call("GC");
        let mut config = valid.config.clone();
        config["cni.dev/valid-attachments"] = json!([{"containerID": valid.id, "ifname": "eth0"}]);
        call.stdin = config.to_string().into_bytes();
        call.variables.retain(|(name, _)| name == "CNI_PATH");
        call.execute(&node.host)?.ok()?;
        wait::until(SOON, "the stale one is gone", || {
            ensure!(!node.has(&stale)?);
            Ok(())
        })?;
        for (pod, why) in [(&valid, "valid"), (&other, "another's"), (&by_hand, "no CNI's")] {
            ensure!(node.has(pod)?, "removed although {why}");
            pod.net.sh("ip -o link show eth0")?;
        }
        Ok(())
    })
}
