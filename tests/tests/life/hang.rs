//! A kernel that does not answer, or a program that hangs: netd's thread hangs with it. Calls
//! end with an error, the status says what hangs, and all goes on when the thread does.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{GetStatusRequest, GetStatusResponse};
use testbed::{Daemon, Sandbox, block_on, case, frozen::Frozen, net::probe, wait};
use tonic::Code;

use crate::node::Node;

/// The longest time that a call may take, and room for a slow machine.
const ANSWERED: Duration = Duration::from_secs(24);
/// Until a thread is said to hang.
const NOTICED: Duration = Duration::from_secs(25);
/// `netd status` as a person types it, who waits for it.
const STATUS_TIME: Duration = Duration::from_secs(2);

fn quick_status(netd: &Daemon) -> Result<GetStatusResponse> {
    let start = Instant::now();
    let status = netd.status()?;
    ensure!(start.elapsed() < STATUS_TIME, "the status took {:?}", start.elapsed());
    Ok(status)
}

fn problem(netd: &Daemon, component: &str) -> Result<Option<String>> {
    let parts = quick_status(netd)?.components;
    let part = parts.into_iter().find(|part| part.name == component);
    Ok(part.filter(|part| !part.ready).map(|part| part.reason))
}

/// Until the status says that `thread` hangs, and the node is not ready for it.
fn noticed(netd: &Daemon, thread: &str) -> Result<()> {
    wait::until(NOTICED, "the status names the thread", || {
        let why = problem(netd, "workers")?.context("all workers work")?;
        ensure!(why.contains(thread), "{why}");
        ensure!(!quick_status(netd)?.ready, "ready all the same");
        Ok(())
    })
    .map(drop)
}

fn works_again(node: &Node) -> Result<()> {
    wait::until(Duration::from_secs(15), "ready again", || {
        let status = quick_status(&node.netd)?;
        ensure!(status.ready, "{:?}", status.components);
        Ok(())
    })?;
    let (one, two) = (node.attached("one")?, node.attached("two")?);
    probe::ping(&one.net, two.v4()?)?;
    one.del(&node.host)?;
    two.del(&node.host)?;
    node.nothing_left()
}

/// An attach of which this thread does a part.
fn an_attach_ends(thread: &str) -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let bare = Sandbox::bare(&node.host, "late")?;
        let frozen = Frozen::freeze(node.netd.pid(), thread)?;
        quick_status(&node.netd)?;
        let start = Instant::now();
        let refused = node.netd.attach(bare.request()).err().context("attached")?;
        ensure!(start.elapsed() < ANSWERED, "answered after {:?}", start.elapsed());
        ensure!(refused.code() == Code::Unavailable, "{refused:?}");
        ensure!(refused.message().contains(thread), "{refused:?}");
        noticed(&node.netd, thread)?;
        // It is known to hang now: nobody waits long for it.
        let start = Instant::now();
        let again = Sandbox::bare(&node.host, "again")?;
        ensure!(node.netd.attach(again.request()).is_err());
        ensure!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        drop(frozen);
        // What was refused does not come late: neither a link nor an address is left of it.
        works_again(&node)?;
        ensure!(bare.net.sh("ip -o link show eth0").is_err(), "the refused attach came late");
        Ok(())
    })
}

#[test]
fn an_attach_ends_though_the_links_thread_hangs() -> Result<()> {
    an_attach_ends("netd-links")
}

#[test]
fn an_attach_ends_though_the_firewall_s_thread_hangs() -> Result<()> {
    an_attach_ends("netd-firewall")
}

#[test]
fn a_detach_that_could_not_be_done_is_done_later() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.attached("pod")?;
        let frozen = Frozen::freeze(node.netd.pid(), "netd-links")?;
        let start = Instant::now();
        let done = pod.call("DEL").execute(&node.host)?;
        ensure!(start.elapsed() < Duration::from_secs(31), "{:?}", start.elapsed());
        ensure!(done.ok().is_err(), "a DEL that did nothing succeeded");
        drop(frozen);
        pod.del(&node.host)?;
        works_again(&node)
    })
}

#[test]
fn every_other_thread_that_hangs_is_named() -> Result<()> {
    case(|bed| {
        for thread in ["netd-repairs", "netd-reaper", "netd-overlay"] {
            let node = Node::start_named(bed, thread)?;
            let frozen = Frozen::freeze(node.netd.pid(), thread)?;
            noticed(&node.netd, thread)?;
            drop(frozen);
            works_again(&node)?;
        }
        let node = Node::start_named(bed, "netd-events")?;
        let frozen = Frozen::freeze(node.netd.pid(), "netd-events")?;
        wait::until(NOTICED, "the status says that no events are heard", || {
            problem(&node.netd, "events")?.context("events are heard").map(drop)
        })?;
        drop(frozen);
        works_again(&node)
    })
}

fn limit_descriptors(netd: &Daemon, most: &str) -> Result<()> {
    let (pid, limit) = (netd.pid().to_string(), format!("--nofile={most}"));
    let done =
        Command::new("prlimit").args(["--pid", &pid, &limit]).stdin(Stdio::null()).status()?;
    ensure!(done.success(), "prlimit: {done}");
    Ok(())
}

/// poll(2) fails with EINVAL while fewer descriptors are allowed than it is asked about.
#[test]
fn a_listener_whose_sockets_fail_listens_again() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let (one, two) = (node.attached("one")?, node.attached("two")?);
        // A connection from before: netd can't accept one meanwhile.
        let mut nodes = node.netd.nodes()?;
        block_on(nodes.get_status(GetStatusRequest::default()))?;
        limit_descriptors(&node.netd, "2:")?;
        // It waits for events and wakes at the first one.
        let broken = "ip link set cni0 down";
        node.host.net.sh(broken)?;
        let shown = wait::until(Duration::from_secs(10), "events are said to be unheard", || {
            let parts =
                block_on(nodes.get_status(GetStatusRequest::default()))?.into_inner().components;
            let part = parts.into_iter().find(|part| part.name == "events").context("no part")?;
            ensure!(!part.ready && part.reason.contains("not noticed"), "{part:?}");
            Ok(())
        });
        limit_descriptors(&node.netd, "1024:")?;
        shown?;
        // What it has missed is repaired, and what happens from now on is heard.
        for round in 0..2 {
            wait::until(Duration::from_secs(20), "put back", || probe::ping(&one.net, two.v4()?))
                .with_context(|| format!("round {round}"))?;
            wait::until(Duration::from_secs(10), "heard again", || {
                ensure!(problem(&node.netd, "events")?.is_none());
                Ok(())
            })?;
            node.host.net.sh(broken)?;
        }
        one.del(&node.host)?;
        two.del(&node.host)
    })
}
