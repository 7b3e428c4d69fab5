//! The MTU follows the underlay, also while pods run.

use std::time::Duration;

use anyhow::{Result, ensure};
use testbed::{Namespace, case, wait};

use crate::node::Node;
use testbed::DaemonConfig;

fn mtu(net: &Namespace, device: &str) -> Result<u32> {
    let shown = net.sh(&format!("ip -o link show dev {device}"))?;
    let mtu = shown.split(" mtu ").nth(1).and_then(|rest| rest.split(' ').next());
    Ok(mtu.unwrap_or_default().parse()?)
}

fn follows(driver: &str) -> Result<()> {
    case(|bed| {
        let mut node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let old = node.attached("old")?;
        ensure!(mtu(&old.net, "eth0")? == 1500);
        for wanted in [1400, 1500] {
            node.host.net.sh(&format!("ip link set eth0 mtu {wanted}"))?;
            let port = node.endpoint(&old)?.host_interface;
            wait::until(Duration::from_secs(3), "the MTU is followed", || {
                let mut seen = vec![mtu(&old.net, "eth0")?, mtu(&node.host.net, &port)?];
                if driver == "bridge" {
                    seen.push(mtu(&node.host.net, "cni0")?);
                }
                ensure!(seen.iter().all(|seen| *seen == wanted), "{seen:?}, not {wanted}");
                Ok(())
            })?;
            let new = node.attached("new")?;
            ensure!(mtu(&new.net, "eth0")? == wanted, "a new pod");
            let networks = node.netd.networks()?;
            ensure!(networks.iter().all(|network| network.mtu == wanted), "{networks:?}");
            old.call("CHECK");
            new.del(&node.host)?;
        }
        // Also what changed while nobody looked.
        node.netd.kill9()?;
        node.host.net.sh("ip link set eth0 mtu 1300")?;
        node.netd.restart()?;
        wait::until(Duration::from_secs(3), "the MTU is followed after a restart", || {
            let seen = mtu(&old.net, "eth0")?;
            ensure!(seen == 1300, "{seen}");
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn pods_on_a_bridge_follow_the_underlay() -> Result<()> {
    follows("bridge")
}

#[test]
fn routed_pods_follow_the_underlay() -> Result<()> {
    follows("routed")
}

#[test]
fn a_pod_with_an_mtu_of_its_own_keeps_it() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let pod = node.bare("pod")?;
        node.netd.attach(netd_api::v1::AttachRequest { mtu: 1350, ..pod.request() })?;
        let other = node.attached("other")?;
        node.host.net.sh("ip link set eth0 mtu 1450")?;
        wait::until(Duration::from_secs(3), "the other pod follows", || {
            ensure!(mtu(&other.net, "eth0")? == 1450);
            Ok(())
        })?;
        ensure!(mtu(&pod.net, "eth0")? == 1350);
        Ok(())
    })
}
