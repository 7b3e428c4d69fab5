//! What people and programs are shown of the cluster.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netd_api::v1::{EventType, WatchClusterEndpointsRequest, WatchClusterEndpointsResponse};
use testbed::{
    Cluster, Plan, Sandbox, block_on, case,
    cluster::{Families, Node},
    wait,
};
use tonic::Streaming;

use super::{SOON, backend};

#[test]
fn a_pod_is_found_from_every_node() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")))?;
        let pods = cluster.pods()?;
        for node in &cluster.nodes {
            for (pod, home) in pods.iter().zip(&cluster.nodes) {
                for ip in &pod.ips {
                    found(node, home, pod, *ip)?;
                }
            }
            let table = node.netd.cli(&["node", "list"])?;
            for other in &cluster.nodes {
                ensure!(table.contains(&other.host.name), "{table}");
            }
            ensure!(table.matches("programmed").count() == 3, "{table}");
        }
        let (first, pod) = (&cluster.nodes[0], &pods[2]);
        let text = first.netd.cli(&["route", "get", &pod.v4()?.to_string()])?;
        for word in [pod.id.as_str(), "test/pod", "n2", "vxlan", "flannel.1", "1430", "yes"] {
            ensure!(text.contains(word), "no {word} in\n{text}");
        }
        // An address that no pod has, and one that no node has.
        let free = first.netd.cli(&["route", "get", &free_address(pod)?])?;
        ensure!(free.contains("no pod has it"), "{free}");
        let foreign = first.route("192.0.2.1".parse()?)?;
        ensure!(foreign.node.is_none() && foreign.kernel.is_some(), "{foreign:?}");
        Ok(())
    })
}

fn found(node: &Node, home: &Node, pod: &Sandbox, ip: std::net::IpAddr) -> Result<()> {
    // Publishing is behind the attach's back.
    wait::until(SOON, "the pod is published", || {
        let route = node.route(ip)?;
        let endpoint = route.endpoint.as_ref().with_context(|| format!("{route:?}"))?;
        ensure!(endpoint.sandbox_id == pod.id && endpoint.node == home.host.name, "{route:?}");
        ensure!(endpoint.pod_name == "pod" && endpoint.pod_namespace == "test", "{route:?}");
        ensure!(route.node.as_ref().is_some_and(|n| n.node == home.host.name), "{route:?}");
        ensure!(route.agrees, "{route:?}");
        Ok(())
    })?;
    Ok(())
}

/// One of the pod's subnet that is not its own.
fn free_address(pod: &Sandbox) -> Result<String> {
    let ip = pod.v4()?.to_string();
    let (net, _) = ip.rsplit_once('.').context("no IPv4 address")?;
    Ok(format!("{net}.250"))
}

#[test]
fn a_route_that_the_kernel_does_not_have_is_said() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("host-gw")).nodes(2))?;
        let pods = cluster.pods()?;
        let (node, pod) = (&cluster.nodes[0], &pods[1]);
        // A narrower route of another program's: netd leaves it alone, and says so.
        node.host.net.sh(&format!("ip route add {}/32 via 192.0.2.1", pod.v4()?))?;
        let route = node.route(pod.v4()?)?;
        ensure!(!route.agrees && route.difference.contains("192.0.2.1"), "{route:?}");
        ensure!(node.netd.cli(&["route", "get", &pod.v4()?.to_string()]).is_err(), "exit code 0");
        Ok(())
    })
}

async fn next(
    stream: &mut Streaming<WatchClusterEndpointsResponse>,
) -> Result<WatchClusterEndpointsResponse> {
    let event = tokio::time::timeout(Duration::from_secs(5), stream.message()).await;
    event.context("no event")??.context("the stream ended")
}

#[test]
fn endpoints_of_all_nodes_are_watched_from_one() -> Result<()> {
    case(|bed| {
        let cluster = Cluster::start(bed, &Plan::new(Families::Dual, backend("vxlan")).nodes(2))?;
        let old = Sandbox::attached(&cluster.nodes[1].host, "old")?;
        wait::until(SOON, "it is published", || {
            let keys = cluster.keys("/netd/v1/endpoints/")?;
            ensure!(keys.len() == 2, "{keys:?}");
            Ok(())
        })?;
        let mut service = cluster.nodes[0].cluster_service()?;
        let request = WatchClusterEndpointsRequest { after_revision: 0 };
        let mut stream = block_on(service.watch_cluster_endpoints(request))?.into_inner();
        let mut there = Vec::new();
        let synced = loop {
            let event = block_on(next(&mut stream))?;
            match event.r#type() {
                EventType::Synced => break event.revision,
                _ => there.push(event.endpoint.context("no endpoint")?.sandbox_id),
            }
        };
        ensure!(there.contains(&old.id), "{there:?}");
        let fresh = Sandbox::attached(&cluster.nodes[1].host, "fresh")?;
        let event = block_on(next(&mut stream))?;
        let endpoint = event.endpoint.clone().context("no endpoint")?;
        ensure!(endpoint.sandbox_id == fresh.id && endpoint.node == "n1", "{event:?}");
        ensure!(endpoint.ips.len() == 2, "{event:?}");
        old.del(&cluster.nodes[1].host)?;
        let (mut gone, mut events) = (Vec::new(), 0);
        while gone.len() < old.ips.len() {
            let event = block_on(next(&mut stream))?;
            events += 1;
            ensure!(events < 10, "{gone:?} of {:?}", old.ips);
            if event.r#type() == EventType::Removed {
                gone.extend(event.endpoint.context("no endpoint")?.ips);
            }
        }
        gone.sort();
        let mut expected: Vec<String> = old.ips.iter().map(ToString::to_string).collect();
        expected.sort();
        ensure!(gone == expected, "{gone:?}");
        // What came since the first list is told again to who asks from there.
        let request = WatchClusterEndpointsRequest { after_revision: synced };
        let mut again = block_on(service.watch_cluster_endpoints(request))?.into_inner();
        let event = block_on(next(&mut again))?;
        ensure!(event.endpoint.is_some_and(|e| e.sandbox_id == fresh.id), "not the first change");
        Ok(())
    })
}

#[test]
fn readiness_goes_when_peers_cannot_be_programmed_and_comes_back() -> Result<()> {
    case(|bed| {
        let mut cluster = Cluster::start(bed, &Plan::new(Families::V4, backend("udp")).nodes(2))?;
        let node = &mut cluster.nodes[0];
        // Without its tunnel process nothing can be told.
        drop(node.tunnel.take());
        cluster.join(bed)?;
        let node = &mut cluster.nodes[0];
        wait::until(SOON, "it is not ready", || {
            let problem = node.problem("overlay")?;
            ensure!(problem.contains("tunnel"), "{problem}");
            ensure!(!node.netd.status()?.ready);
            ensure!(node.metric("netd_overlay_peers{state=\"failed\"")? >= 1.0);
            Ok(())
        })?;
        node.need_tunnel()?;
        node.wait_ready()?;
        cluster.wait_converged()?;
        let pods = cluster.pods()?;
        super::pings(&pods[0], &pods[2])
    })
}
