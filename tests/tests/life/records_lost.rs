//! run_dir and state_dir were emptied under running pods: netd knows none of them, the
//! kernel has them all.

use anyhow::{Result, ensure};
use netd_api::v1::Bandwidth;
use serde_json::json;
use testbed::{Daemon, Sandbox, case, net::probe, stack::check_nothing_left, wait};

use crate::node::{SOON, config};

fn reaches(from: &Sandbox, to: &Sandbox) -> Result<()> {
    probe::ping(&from.net, to.v4()?)?;
    probe::ping(&from.net, to.v6()?)
}

/// What `netd status` says of addresses that are held; empty when none is.
fn shown(netd: &Daemon) -> Result<String> {
    let parts = netd.status()?.components;
    Ok(parts.into_iter().find(|c| c.name == "foreign-pods").map(|c| c.reason).unwrap_or_default())
}

fn pods_outlive_their_records(driver: &str) -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &config(driver))?;
        let before = testbed::inventory::of(&host)?;
        let mut limited = Sandbox::bare(&host, "limited")?;
        let rate = json!({"ingressRate": 80_000_000, "ingressBurst": 8_000_000,
                          "egressRate": 80_000_000, "egressBurst": 8_000_000});
        limited.config["runtimeConfig"] = json!({"bandwidth": rate});
        limited.add(&host)?;
        let mut fixed = Sandbox::bare(&host, "fixed")?;
        fixed.config["runtimeConfig"] = json!({"mac": "02:11:22:33:44:55"});
        fixed.add(&host)?;
        reaches(&limited, &fixed)?;
        for round in 0..2 {
            netd.kill9()?;
            if round == 0 {
                netd.empty_directories()?;
            }
            netd.restart()?;
            ensure!(netd.endpoints()?.is_empty());
            reaches(&limited, &fixed)?;
            reaches(&fixed, &limited)?;
            probe::ping(&limited.net, host.v4.into())?;
            ensure!(netd.addresses_used()? == 4, "not all are held");
            let text = shown(&netd)?;
            for ip in limited.ips.iter().chain(&fixed.ips) {
                ensure!(text.contains(&ip.to_string()), "{ip} is not shown: {text}");
            }
            ensure!(netd.cli(&["status"])?.contains("foreign-pods"));
        }
        // Neither by choice nor by request is an address given out twice.
        let pods: Vec<Sandbox> =
            (0..4).map(|n| Sandbox::attached(&host, &format!("new{n}"))).collect::<Result<_>>()?;
        for pod in &pods {
            ensure!(!pod.ips.iter().any(|ip| limited.ips.contains(ip) || fixed.ips.contains(ip)));
            reaches(pod, &fixed)?;
        }
        let mut thief = Sandbox::bare(&host, "thief")?;
        thief.config["runtimeConfig"] = json!({"ips": [fixed.v4()?.to_string()]});
        let answer = thief.call("ADD").execute(&host)?;
        ensure!(
            !answer.success && answer.json["msg"].to_string().contains("netd has no record"),
            "{answer:?}"
        );
        // A DEL, and the end of the namespace, free what the pod had.
        fixed.del(&host)?;
        let held = |count| {
            wait::until(SOON, "addresses are free", || {
                let used = netd.addresses_used()?;
                ensure!(used == count, "{used} are used");
                Ok(())
            })
        };
        held(10)?;
        ensure!(fixed.net.sh("ip -o link show eth0").is_err(), "DEL left the interface");
        limited.vanish();
        held(8)?;
        wait::until(SOON, "nothing is shown", || {
            ensure!(shown(&netd)?.is_empty());
            Ok(())
        })?;
        thief.add(&host)?;
        thief.del(&host)?;
        for pod in pods {
            pod.del(&host)?;
        }
        check_nothing_left(&host, &netd, &before)
    })
}

#[test]
fn pods_on_a_bridge_outlive_their_records() -> Result<()> {
    pods_outlive_their_records("bridge")
}

#[test]
fn routed_pods_outlive_their_records() -> Result<()> {
    pods_outlive_their_records("routed")
}

/// The other way round: what nobody lives in any more is removed as before.
#[test]
fn links_whose_pods_are_gone_are_removed() -> Result<()> {
    case(|bed| {
        let host = bed.host("node")?;
        let mut netd = Daemon::start(&host, &config("bridge"))?;
        let before = testbed::inventory::of(&host)?;
        let mut pod = Sandbox::bare(&host, "pod")?;
        let request = netd_api::v1::AttachRequest {
            bandwidth: Some(Bandwidth {
                egress_rate: 80_000_000,
                egress_burst: 8_000_000,
                ..Bandwidth::default()
            }),
            ..pod.request()
        };
        netd.attach(request)?;
        netd.kill9()?;
        pod.vanish();
        // A pair that never left the host is nobody's pod.
        host.net.sh("ip link add nd0123456789ab type veth peer name np0123456789ab")?;
        netd.empty_directories()?;
        netd.restart()?;
        check_nothing_left(&host, &netd, &before)
    })
}
