//! Nothing depends on who is there first, and for how long.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testbed::{
    net::probe::{self, Mirror},
    wait,
};

use super::stack::{SOON, Stack};

const POOLS: [&str; 2] = ["10.88.0.0/16", "fd00:88::/64"];

/// `--network container:ID`, `docker restart`, a restart policy.
pub(crate) fn pause_and_restarts(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &POOLS)?;
    let pause = stack.docker.container(&["--network", "shared", "--name", "pause"])?;
    let before = stack.docker.addresses("pause", "shared")?;
    let seen = stack.docker.run(&[
        "run",
        "--rm",
        "--network",
        "container:pause",
        "test:1",
        "ip",
        "-o",
        "addr",
    ])?;
    ensure!(before.iter().all(|ip| seen.contains(&ip.to_string())), "{seen}");
    stack.docker.run(&["restart", "-t", "0", "pause"])?;
    let net = stack.docker.namespace("pause")?;
    let own = *stack.docker.addresses("pause", "shared")?.first().context("none")?;
    let _mirror = Mirror::serve(&net, 7000)?;
    probe::tcp(&stack.host.net, own, 7000).context("after a restart")?;
    let flags = [
        "run",
        "-d",
        "--network",
        "shared",
        "--name",
        "fails",
        "--restart",
        "always",
        "test:1",
        "sh",
        "-c",
        "sleep 0.3; false",
    ];
    stack.docker.run(&flags)?;
    wait::until(SOON, "the restart policy starts it again", || {
        let count = stack.docker.inspect("fails")?["RestartCount"].as_u64().unwrap_or(0);
        ensure!(count >= 2, "{count} restarts");
        Ok(())
    })?;
    stack.docker.remove(&["fails", &pause.id])?;
    stack.remove_networks(&["shared"])
}

/// As with pods: what is netd's, netd puts back.
pub(crate) fn drift(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &POOLS)?;
    let one = stack.docker.container(&["--network", "shared", "-p", "8086:7000"])?;
    stack.settled(1)?;
    let endpoint = stack.netd.endpoints()?.pop().context("no endpoint")?;
    let (link, pool) = (
        endpoint.host_interface,
        *stack.docker.addresses(&one.id, "shared")?.first().context("none")?,
    );
    let _mirror = Mirror::serve(&one.net, 7000)?;
    let works = |what: &str| {
        wait::until(SOON, what, || {
            probe::tcp(&stack.host.net, pool, 7000)?;
            probe::tcp(&stack.outside.net, stack.host.v4.into(), 8086)
        })
    };
    stack.host.net.sh(&format!("ip link set {link} nomaster"))?;
    works("off its bridge")?;
    // The container's side is its own.
    one.net.sh(&format!("ip address del {pool}/16 dev eth0"))?;
    wait::pause(Duration::from_millis(500));
    let shown = one.net.sh("ip -o address show eth0")?;
    ensure!(!shown.contains(&format!("{pool}/16")), "{shown}");
    stack.host.net.sh(&format!("ip link del {link}"))?;
    works("the pair removed: recreated, default route and all")?;
    // Docker takes it away as if nothing had been.
    stack.docker.remove(&[&one.id])?;
    stack.remove_networks(&["shared"])
}

/// netd restarted under containers; containers started and removed while it is away.
pub(crate) fn netd_away(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &POOLS)?;
    let one = stack.docker.container(&["--network", "shared", "-p", "8087:7000"])?;
    stack.settled(1)?;
    let _mirror = Mirror::serve(&one.net, 7000)?;
    stack.netd.kill9()?;
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8087).context("netd is away")?;
    stack.netd.respawn()?;
    stack.netd.wait_ready()?;
    stack.settled(1)?;
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8087).context("netd is back")?;
    // A start waits for a netd that is being restarted.
    stack.netd.kill9()?;
    let flags = ["run", "-d", "--network", "shared", "test:1", "/bin/sleep", "1000"];
    let mut started = stack.docker.command(&flags)?.stdout(std::process::Stdio::piped()).spawn()?;
    wait::pause(Duration::from_millis(500));
    stack.netd.respawn()?;
    ensure!(started.wait()?.success(), "a start while netd is being restarted");
    stack.settled(2)?;
    // Removed while netd is away for longer than anybody waits: collected later. Whether
    // dockerd minds is its own matter.
    stack.netd.kill9()?;
    let _ = stack.docker.remove(&[&one.id]);
    stack.netd.respawn()?;
    stack.netd.wait_ready()?;
    wait::until(SOON, "the stale endpoint is collected", || {
        let left = stack.netd.endpoints()?;
        ensure!(left.len() == 1, "{left:?}");
        Ok(())
    })?;
    // And the plugin itself.
    stack.plugin.service.kill9()?;
    stack.plugin.respawn()?;
    let again = stack.docker.container(&["--network", "shared"])?;
    stack.docker.remove(&[&again.id])?;
    remove_left(stack)?;
    remove_network(stack, "shared")
}

/// With live-restore containers go on and are taken over; without, they are started
/// again by their restart policy. Either way nothing is left of those before.
pub(crate) fn dockerd_killed(stack: &mut Stack) -> Result<()> {
    stack.share("shared", "default", &POOLS)?;
    let one =
        stack.docker.container(&["--network", "shared", "-p", "8088:7000", "--name", "lives"])?;
    let own = stack.docker.addresses("lives", "shared")?;
    let _mirror = Mirror::serve(&one.net, 7000)?;
    stack.docker.kill9()?;
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8088).context("dockerd is away")?;
    stack.docker.restart()?;
    probe::tcp(&stack.outside.net, stack.host.v4.into(), 8088).context("dockerd is back")?;
    ensure!(stack.docker.addresses("lives", "shared")? == own, "its addresses stay");
    stack.docker.run(&["stop", "-t", "0", "lives"])?;
    stack.docker.run(&["start", "lives"])?;
    stack.settled(1)?;
    // A container that ends while dockerd is away.
    let pid = stack.docker.inspect("lives")?["State"]["Pid"].clone();
    stack.docker.kill9()?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid.as_i64().context("no pid")?)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)?;
    stack.docker.restart()?;
    wait::until(SOON, "the endpoint of the ended container goes", || {
        let left = stack.netd.endpoints()?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    stack.docker.run(&["start", "lives"])?;
    stack.settled(1)?;
    stack.docker.remove(&["lives"])?;
    remove_network(stack, "shared")
}

/// Containers whose removal failed while netd was away.
pub(crate) fn remove_left(stack: &Stack) -> Result<()> {
    let all = stack.docker.run(&["ps", "-aq"])?;
    let ids: Vec<&str> = all.split_whitespace().collect();
    if ids.is_empty() { Ok(()) } else { stack.docker.remove(&ids) }
}

/// dockerd may still believe that a container of before is in it.
pub(crate) fn remove_network(stack: &mut Stack, name: &str) -> Result<()> {
    if stack.remove_networks(&[name]).is_err() {
        stack.docker.restart()?;
        stack.remove_networks(&[name])?;
    }
    Ok(())
}
