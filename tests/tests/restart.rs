//! A restart of netd is nothing that a running pod can notice.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{
    Bed, Daemon, DaemonConfig, Host, Sandbox, case, inventory,
    net::{flow::Flow, probe},
    stack::check_nothing_left,
    wait,
};

const RATE: u32 = 1000;

fn two_pods(bed: &Bed, driver: &str) -> Result<(Host, Daemon, Sandbox, Sandbox)> {
    let host = bed.host("node")?;
    let netd = Daemon::start(&host, &DaemonConfig::with_driver(driver))?;
    let (one, two) = (Sandbox::attached(&host, "one")?, Sandbox::attached(&host, "two")?);
    // Neighbours are found before the first packet counts.
    for other in [two.v4()?, two.v6()?] {
        probe::ping(&one.net, other)?;
    }
    Ok((host, netd, one, two))
}

/// Three restarts and two crashes under traffic of both families.
fn no_packet_is_lost(driver: &str) -> Result<()> {
    case(|bed| {
        let (host, mut netd, one, two) = two_pods(bed, driver)?;
        let flows = [
            Flow::start(&one.net, &two.net, two.v4()?, 9000, RATE)?,
            Flow::start(&two.net, &one.net, one.v6()?, 9000, RATE)?,
        ];
        for crash in [false, true, false, true, false] {
            wait::pause(Duration::from_millis(500));
            if crash {
                netd.kill9()?;
                wait::pause(Duration::from_millis(300));
            }
            netd.restart()?;
        }
        wait::pause(Duration::from_millis(500));
        for flow in flows {
            let count = flow.finish()?;
            ensure!(count.rate > f64::from(RATE) * 0.9, "too slow to say anything: {count:?}");
            ensure!(count.sent > 3000, "too few to say anything: {count:?}");
            ensure!(
                count.received == count.sent,
                "lost {}: {count:?}",
                count.sent - count.received
            );
        }
        drop(host);
        Ok(())
    })
}

#[test]
fn no_packet_is_lost_on_a_bridge_while_netd_restarts() -> Result<()> {
    no_packet_is_lost("bridge")
}

#[test]
fn no_packet_is_lost_on_routed_pods_while_netd_restarts() -> Result<()> {
    no_packet_is_lost("routed")
}

#[test]
fn a_restarted_netd_knows_its_pods_and_changes_nothing_in_the_kernel() -> Result<()> {
    case(|bed| {
        let (host, mut netd, one, two) = two_pods(bed, "bridge")?;
        let (endpoints, kernel) = (netd.endpoints()?, inventory::of(&host)?);
        netd.kill9()?;
        netd.restart()?;
        let difference = inventory::difference(&kernel, &inventory::of(&host)?);
        ensure!(difference.is_empty(), "{difference}");
        ensure!(netd.endpoints()? == endpoints, "the records changed");
        let third = Sandbox::attached(&host, "three")?;
        ensure!(![one.v4()?, two.v4()?].contains(&third.v4()?), "an address was given out twice");
        probe::ping(&third.net, one.v4()?)
    })
}

#[test]
fn a_pod_that_goes_while_netd_is_dead_is_detached_once_it_is_back() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &DaemonConfig::default())?;
        let before = inventory::of(&host)?;
        let one = Sandbox::attached(&host, "one")?;
        netd.kill9()?;
        let refused = one.call("DEL").execute(&host)?;
        ensure!(!refused.success, "a DEL that did nothing must not say it succeeded");
        netd.restart()?;
        // The runtime tries again, with the namespace gone by then.
        let del = one.call("DEL");
        drop(one);
        del.execute(&host)?.ok()?;
        check_nothing_left(&host, &netd, &before)
    })
}
