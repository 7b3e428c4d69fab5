//! One network namespace has one netd, whatever its directories are.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{Daemon, DaemonConfig, Host, Sandbox, case, inventory, net::probe};

use crate::node::{Node, config};

/// A second netd ends by itself, and says who is there and what to do.
fn refused(host: &Host, config: &DaemonConfig, name: &str, holder: u32) -> Result<()> {
    let mut second = Daemon::launch_in(host, config, name)?;
    let status = second.service().ended(Duration::from_secs(10))?;
    let said = second.logged();
    ensure!(!status.success(), "it ran: {said}");
    for word in [format!("pid {holder}"), "network namespace".into(), "stop".into()] {
        ensure!(said.contains(&word), "no \"{word}\": {said}");
    }
    Ok(())
}

#[test]
fn a_second_netd_on_a_host_is_refused_and_harms_nobody() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let pods = [node.attached("one")?, node.attached("two")?];
        let before = inventory::of(&node.host)?;
        let other = DaemonConfig {
            top: "metrics_listen = \"off\"\n".to_owned(),
            ..DaemonConfig::with_driver("routed")
        };
        for configured in [&other, &config("bridge")] {
            refused(&node.host, configured, "second", node.netd.pid())?;
            let now = inventory::of(&node.host)?;
            ensure!(now == before, "{}", inventory::difference(&before, &now));
            probe::ping(&pods[0].net, pods[1].v4()?)?;
            probe::ping(&pods[0].net, pods[1].v6()?)?;
        }
        // The first one's end makes room, however it ends; and it comes back as it was.
        for _ in 0..2 {
            node.netd.kill9()?;
            node.netd.restart()?;
            refused(&node.host, &other, "second", node.netd.pid())?;
        }
        probe::ping(&pods[0].net, pods[1].v4()?)
    })
}

#[test]
fn netds_of_two_network_namespaces_are_no_concern_of_each_other() -> Result<()> {
    case(|bed| {
        let (one, two) = (bed.host("one")?, bed.host("two")?);
        let _first = Daemon::start(&one, &config("bridge"))?;
        let _second = Daemon::start(&two, &config("bridge"))?;
        let pods = [Sandbox::attached(&one, "pod")?, Sandbox::attached(&two, "pod")?];
        ensure!(pods[0].v4()? == pods[1].v4()?, "two nodes, each with its own pools");
        Ok(())
    })
}
