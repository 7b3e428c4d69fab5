//! Several networks on one node, made and deleted while it runs.

use anyhow::{Result, ensure};
use netd_api::v1::{Driver, Network};
use serde_json::json;
use testbed::{
    Sandbox, case,
    net::probe::{self, Mirror},
};
use tonic::Code;

use crate::node::{Node, network, refused};

#[test]
fn a_network_made_at_run_time_serves_pods_and_lasts_over_restarts() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let blue = network("blue", Driver::Bridge, &["10.77.0.0/24", "fd00:77::/64"]);
        let status = node.netd.create_network(blue.clone())?;
        ensure!(status.ready, "{status:?}");
        node.netd.create_network(blue).map_err(|error| error.into()).and_then(
            |again: netd_api::v1::NetworkStatus| {
                ensure!(again.endpoints == 0);
                Ok(())
            },
        )?;
        let (one, two) = (node.to("one", "blue")?, node.to("two", "blue")?);
        probe::ping(&one.net, two.v4()?)?;
        probe::ping(&one.net, two.v6()?)?;
        for crash in [false, true] {
            if crash {
                node.netd.kill9()?;
            }
            node.netd.restart()?;
            let names: Vec<String> = node
                .netd
                .networks()?
                .into_iter()
                .filter_map(|status| status.network.map(|network| network.name))
                .collect();
            ensure!(names == ["blue", "default"], "{names:?}");
            probe::ping(&one.net, two.v4()?)?;
        }
        let three = node.to("three", "blue")?;
        probe::ping(&three.net, one.v6()?)?;
        for pod in [&one, &two, &three] {
            pod.del(&node.host)?;
        }
        // While links are being removed the network may count as in use.
        testbed::wait::until(std::time::Duration::from_secs(5), "blue is deleted", || {
            Ok(node.netd.delete_network("blue")?)
        })?;
        node.nothing_left()
    })
}

#[test]
fn what_netd_makes_and_removes_itself_is_no_drift() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        for (name, driver) in [("blue", Driver::Bridge), ("red", Driver::Routed)] {
            let subnet = if name == "blue" { "10.77.0.0/24" } else { "10.78.0.0/24" };
            node.netd.create_network(network(name, driver, &[subnet]))?;
            let pods = [node.to("one", name)?, node.to("two", name)?];
            for pod in &pods {
                pod.del(&node.host)?;
            }
            testbed::wait::until(std::time::Duration::from_secs(5), "it is deleted", || {
                Ok(node.netd.delete_network(name)?)
            })?;
        }
        // Whoever looks at late events has had the time to.
        testbed::wait::pause(std::time::Duration::from_millis(500));
        let drift = node.netd.status()?.drift;
        ensure!(drift.iter().all(|count| count.repaired == 0), "{drift:?}");
        node.nothing_left()
    })
}

#[test]
fn a_network_in_use_is_not_deleted_and_one_that_is_not_there_is() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        node.netd.create_network(network("blue", Driver::Routed, &["10.77.0.0/24"]))?;
        let pod = node.to("pod", "blue")?;
        let status = node.netd.delete_network("blue").err();
        let code = status.as_ref().map(tonic::Status::code);
        ensure!(code == Some(Code::FailedPrecondition), "{status:?}");
        ensure!(node.netd.networks()?.len() == 2);
        pod.net.sh("ip -o link show eth0")?;
        node.netd.delete_network("nowhere")?;
        pod.del(&node.host)?;
        testbed::wait::until(std::time::Duration::from_secs(5), "blue is deleted", || {
            Ok(node.netd.delete_network("blue")?)
        })?;
        refused(&node.add(&in_network(&node, "late", "blue")?)?, 7, &["blue"])?;
        node.nothing_left()
    })
}

fn in_network(node: &Node, name: &str, network: &str) -> Result<Sandbox> {
    let mut pod = node.bare(name)?;
    pod.config["network"] = json!(network);
    Ok(pod)
}

#[test]
fn a_network_that_differs_or_overlaps_is_refused_and_nothing_is_made() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let blue = || network("blue", Driver::Bridge, &["10.77.0.0/24"]);
        node.netd.create_network(blue())?;
        let wrong = [
            ("another pool", network("blue", Driver::Bridge, &["10.78.0.0/24"])),
            ("another driver", network("blue", Driver::Routed, &["10.77.0.0/24"])),
            ("another MTU", Network { mtu: 1400, ..blue() }),
            ("internal", Network { internal: true, ..blue() }),
            ("inside a pool", network("red", Driver::Routed, &["10.77.0.128/25"])),
            ("around a pool", network("red", Driver::Routed, &["10.76.0.0/15"])),
            ("the same pool", network("red", Driver::Routed, &["10.77.0.0/24"])),
            ("v6 overlap", network("red", Driver::Bridge, &["10.1.0.0/24", "fd00:88::/80"])),
            (
                "the same bridge",
                Network {
                    bridge: "cni0".to_owned(),
                    ..network("red", Driver::Bridge, &["10.1.0.0/24"])
                },
            ),
        ];
        let codes = [Code::AlreadyExists, Code::InvalidArgument, Code::FailedPrecondition];
        for (what, network) in wrong {
            let outcome = node.netd.create_network(network);
            let code = outcome.as_ref().err().map(tonic::Status::code);
            ensure!(code.is_some_and(|code| codes.contains(&code)), "{what}: {outcome:?}");
        }
        ensure!(node.netd.networks()?.len() == 2);
        node.netd.delete_network("blue")?;
        node.nothing_left()
    })
}

#[test]
fn a_bridge_of_another_programs_is_not_taken_over() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        node.host.net.sh("ip link add br-other type dummy 2>/dev/null || \
                          ip link add br-other type veth peer name br-peer")?;
        let before = node.host.net.sh("ip -o link show br-other")?;
        let mut red = network("red", Driver::Bridge, &["10.1.0.0/24"]);
        red.bridge = "br-other".to_owned();
        // Recorded but not ready, or refused: either says what is wrong.
        match node.netd.create_network(red) {
            Ok(status) => {
                ensure!(!status.ready && status.problem.contains("br-other"), "{status:?}");
            }
            Err(status) => ensure!(status.message().contains("br-other"), "{status:?}"),
        }
        let kind = node.host.net.sh("ip -o link show br-other")?;
        ensure!(kind == before, "{kind}");
        node.netd.delete_network("red")?;
        node.host.net.sh("ip -o link show br-other").map(drop)
    })
}

#[test]
fn an_internal_network_made_at_run_time_has_no_way_out() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        for (name, driver, subnets) in [
            ("closed", Driver::Bridge, ["10.55.0.0/24", "fd00:55::/64"]),
            ("shut", Driver::Routed, ["10.56.0.0/24", "fd00:56::/64"]),
        ] {
            let closed = Network { internal: true, ..network(name, driver, &subnets) };
            node.netd.create_network(closed)?;
            let (one, two) = (node.to("one", name)?, node.to("two", name)?);
            probe::ping(&one.net, two.v4()?)?;
            probe::ping(&one.net, two.v6()?)?;
            let routes = one.net.sh("ip route show default; ip -6 route show default")?;
            ensure!(routes.is_empty(), "{name}: {routes}");
            // With a route of its own making it gets no further.
            one.net.sh("ip route add default dev eth0; ip -6 route add default dev eth0")?;
            ensure!(probe::ping(&one.net, outside.v4.into()).is_err(), "{name}: v4 got out");
            ensure!(probe::ping(&one.net, outside.v6.into()).is_err(), "{name}: v6 got out");
        }
        Ok(())
    })
}

#[test]
fn bridge_and_routed_networks_live_side_by_side_in_one_pod_too() -> Result<()> {
    case(|bed| {
        let node = Node::start(bed)?;
        let outside = bed.host("outside")?;
        node.netd.create_network(network("fast", Driver::Routed, &["10.77.0.0/24"]))?;
        let (one, two) = (node.attached("one")?, node.attached("two")?);
        for pod in [&one, &two] {
            node.netd.attach(netd_api::v1::AttachRequest {
                interface: "eth1".to_owned(),
                network: "fast".to_owned(),
                no_default_route: true,
                ..pod.request()
            })?;
        }
        let endpoints = node.netd.endpoints()?;
        let to = endpoints
            .iter()
            .find(|endpoint| endpoint.sandbox_id == two.id && endpoint.interface == "eth1")
            .and_then(|endpoint| endpoint.addresses.first())
            .and_then(|address| address.address.split('/').next()?.parse().ok());
        let to = anyhow::Context::context(to, "eth1 has an address")?;
        let _mirror = Mirror::serve(&two.net, 7000)?;
        let from = probe::tcp(&one.net, to, 7000)?;
        ensure!(from.to_string().starts_with("10.77.0."), "over eth1, not as {from}");
        probe::ping(&one.net, two.v4()?)?;
        probe::ping(&one.net, outside.v4.into())?;
        let default = one.net.sh("ip route show default")?;
        ensure!(default.contains("eth0") && !default.contains("eth1"), "{default}");
        // A pod of one network does not reach the other.
        let third = node.attached("three")?;
        ensure!(probe::ping(&third.net, to).is_err(), "networks are not isolated");
        // DEL of eth0 leaves eth1 alone.
        one.del(&node.host)?;
        one.net.sh("ip -o link show eth1")?;
        for pod in [&one, &two, &third] {
            let request =
                netd_api::v1::DetachRequest { sandbox_id: pod.id.clone(), ..Default::default() };
            node.netd.detach(request)?;
        }
        testbed::wait::until(std::time::Duration::from_secs(5), "fast is deleted", || {
            Ok(node.netd.delete_network("fast")?)
        })?;
        node.nothing_left()
    })
}
