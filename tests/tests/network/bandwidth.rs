//! Limits of what a pod receives and sends. Measured coarsely: a limit of 20 Mbit/s
//! on links that do thousands.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::{DaemonConfig, Namespace, Sandbox, Stack, Version, case, cri};

use crate::node::Node;

/// Bits a second.
const LIMIT: u64 = 20_000_000;
/// A burst of this many bits passes at once.
const BURST: u64 = 800_000;
const FOR: Duration = Duration::from_millis(1500);

/// What arrives at `address` in `to` from `from` over TCP, in bits a second.
fn rate(from: &Namespace, to: &Namespace, address: IpAddr) -> Result<f64> {
    let listener = to.run(|| Ok(TcpListener::bind((address, 0))?))?;
    let at = SocketAddr::new(address, listener.local_addr()?.port());
    let mut sender = from.run(|| Ok(TcpStream::connect_timeout(&at, Duration::from_secs(2))?))?;
    let (mut receiver, _) = listener.accept()?;
    receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
    sender.set_write_timeout(Some(Duration::from_millis(300)))?;
    let writing = std::thread::spawn(move || {
        let (start, block) = (Instant::now(), [0; 16 * 1024]);
        while start.elapsed() < FOR + Duration::from_millis(200) {
            let _ = sender.write(&block);
        }
    });
    let (start, mut received, mut buffer) = (Instant::now(), 0, vec![0; 1 << 16]);
    while start.elapsed() < FOR {
        received += receiver.read(&mut buffer).unwrap_or(0);
    }
    let elapsed = start.elapsed();
    drop(receiver);
    let _ = writing.join();
    #[allow(clippy::cast_precision_loss)] // a coarse rate
    Ok(received as f64 * 8.0 / elapsed.as_secs_f64())
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn limited(what: &str, rate: f64) -> Result<()> {
    let limit = LIMIT as f64;
    ensure!(rate < limit * 1.6, "{what}: {rate:.0} is above the limit");
    ensure!(rate > limit * 0.2, "{what}: {rate:.0} is far below the limit");
    Ok(())
}

#[allow(clippy::cast_precision_loss)] // far below 2^52
fn free(what: &str, rate: f64) -> Result<()> {
    ensure!(rate > LIMIT as f64 * 4.0, "{what}: {rate:.0} looks limited");
    Ok(())
}

fn with(node: &Node, name: &str, bandwidth: Value) -> Result<Sandbox> {
    let mut pod = node.bare(name)?;
    pod.config["runtimeConfig"] = json!({"bandwidth": bandwidth});
    pod.add(&node.host)?;
    Ok(pod)
}

fn both_ways(driver: &str, bandwidth: Value) -> Result<()> {
    case(|bed| {
        let node = Node::start_with(bed, &DaemonConfig::with_driver(driver))?;
        let other = node.attached("other")?;
        let pod = with(&node, "pod", bandwidth)?;
        limited("to the pod, v4", rate(&other.net, &pod.net, pod.v4()?)?)?;
        limited("from the pod, v4", rate(&pod.net, &other.net, other.v4()?)?)?;
        limited("to the pod, v6", rate(&node.host.net, &pod.net, pod.v6()?)?)?;
        free("the other pod", rate(&node.host.net, &other.net, other.v4()?)?)?;
        pod.del(&node.host)?;
        other.del(&node.host)?;
        node.nothing_left()
    })
}

#[test]
fn a_pod_on_a_bridge_is_limited_both_ways_with_cnis_spelling() -> Result<()> {
    let limits = json!({"ingressRate": LIMIT, "ingressBurst": BURST,
                        "egressRate": LIMIT, "egressBurst": BURST});
    both_ways("bridge", limits)
}

#[test]
fn a_routed_pod_is_limited_both_ways_with_containerds_spelling() -> Result<()> {
    let limits = json!({"IngressRate": LIMIT, "IngressBurst": BURST,
                        "EgressRate": LIMIT, "EgressBurst": BURST});
    both_ways("routed", limits)
}

#[test]
fn one_direction_alone_is_limited_alone_also_after_a_restart_of_netd() -> Result<()> {
    case(|bed| {
        let mut node = Node::start(bed)?;
        let other = node.attached("other")?;
        let limits = json!({"egressRate": LIMIT, "egressBurst": BURST});
        let pod = with(&node, "pod", limits)?;
        node.netd.kill9()?;
        node.netd.restart()?;
        limited("from the pod", rate(&pod.net, &other.net, other.v4()?)?)?;
        free("to the pod", rate(&other.net, &pod.net, pod.v4()?)?)?;
        Ok(())
    })
}

/// kubelet's annotations, which containerd turns into the `bandwidth` capability.
fn annotations_limit(version: Version) -> Result<()> {
    case(|bed| {
        let stack = Stack::start(bed, version, &DaemonConfig::default())?;
        let cri = stack.cri()?;
        let mut config = cri::pod("one");
        let annotation = |way: &str| (format!("kubernetes.io/{way}-bandwidth"), "20M".to_owned());
        config.annotations = [annotation("ingress"), annotation("egress")].into();
        let (one, two) = (cri.run_pod(config)?, cri.run_pod(cri::pod("two"))?);
        // containerd asks for a burst of 2^32-1 bits, the first half gigabyte, so that
        // a short measurement sees no limit: what is set has to do.
        let endpoints = stack.netd.endpoints()?;
        let limits = endpoints
            .iter()
            .find(|endpoint| endpoint.sandbox_id == one.id)
            .and_then(|endpoint| endpoint.bandwidth)
            .context("no limits are recorded")?;
        ensure!((limits.ingress_rate, limits.egress_rate) == (LIMIT, LIMIT), "{limits:?}");
        let shapers = stack.host.net.sh("tc qdisc show | grep tbf")?;
        ensure!(shapers.matches("rate 20Mbit").count() == 2, "{shapers}");
        for pod in [&one, &two] {
            cri.stop(&pod.id)?;
            cri.remove(&pod.id)?;
        }
        stack.check_nothing_left()
    })
}

#[test]
fn annotations_of_a_pod_of_containerd_2_1_limit_it() -> Result<()> {
    annotations_limit(Version::V2_1)
}

#[test]
fn annotations_of_a_pod_of_containerd_1_7_limit_it() -> Result<()> {
    annotations_limit(Version::V1_7)
}
