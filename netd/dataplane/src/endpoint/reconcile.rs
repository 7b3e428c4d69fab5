//! Full sync of one endpoint: reads the kernel's state, plans, applies.

use std::os::fd::AsFd;

use super::{
    apply::Applier,
    indexes::Indexes,
    observed::{ActualEndpoint, ActualLink},
    op::{Op, Side},
    plan::{needs_local_routes, plan_endpoint},
};
use crate::{
    DataplaneError, Repair,
    device_names::ifb_name,
    error::failed,
    exec::{
        context::{Context, pod_socket},
        namespace::Netns,
    },
    netlink::{Socket, link::LinkId, query},
    sysctl,
};
use netd_domain::{Wiring, WiringDriver};

/// The outcome of a look at the kernel.
struct Findings {
    ops: Vec<Op>,
    indexes: Indexes,
    pod: Socket,
}

/// Makes the endpoint as its wiring says. Returns the repairs.
pub(crate) fn repair(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Vec<Repair>, DataplaneError> {
    let Findings { ops, indexes, pod } = examine(kernel, netns, wiring)?;
    let mut applier = Applier::for_existing(kernel, netns, wiring, indexes, pod);
    if let Err(e) = applier.apply(&ops) {
        applier.undo();
        return Err(e);
    }
    applier.watch();
    Ok(ops.iter().map(|op| op.repair(&wiring.host_ifname)).collect())
}

/// The differences between the wiring and the kernel, in words.
pub(crate) fn check(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Vec<String>, DataplaneError> {
    let findings = examine(kernel, netns, wiring)?;
    let whose = |op: &Op| match op.side() {
        Side::Host => &wiring.host_ifname,
        Side::Pod => &wiring.ifname,
    };
    Ok(findings.ops.iter().map(|op| format!("{}: {}", whose(op), op.difference())).collect())
}

fn examine(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Findings, DataplaneError> {
    if let WiringDriver::Bridge(name) = &wiring.driver {
        // Its index may be outdated: a repair follows when a bridge is replaced.
        kernel.shared.bridges.lock().remove(name);
    }
    let bridge = kernel.bridge(wiring)?;
    let mut pod = pod_socket(netns)?;
    let actual = observe_endpoint(kernel, netns, &mut pod, wiring)
        .map_err(failed(format!("{}: reading its state", wiring.host_ifname)))?;
    let ops = plan_endpoint(wiring, bridge, &actual)?;
    let pod_netns = actual.host.as_ref().and_then(|link| link.peer_netns);
    let indexes = Indexes {
        pod_netns,
        host: actual.host.map_or(0, |link| link.index),
        pod: actual.pod.map_or(0, |link| link.index),
        bridge,
        ifb: actual.limits.ifb.map_or(0, |(index, _)| index),
    };
    Ok(Findings { ops, indexes, pod })
}

fn observe_endpoint(
    kernel: &mut Context,
    netns: &Netns,
    pod: &mut Socket,
    wiring: &Wiring,
) -> std::io::Result<ActualEndpoint> {
    let host = &mut kernel.socket;
    let mut actual = ActualEndpoint {
        host: query::link(host, LinkId::Name(wiring.host_ifname.as_str()))?,
        pod: query::link(pod, LinkId::Name(wiring.ifname.as_str()))?,
        loopback_up: query::link(pod, LinkId::Name("lo"))?.is_some_and(|lo| lo.up),
        ..ActualEndpoint::default()
    };
    if actual.host.is_none() {
        actual.host = renamed(host, wiring, actual.pod.as_ref())?;
    }
    if let (Some(near), Some(far)) = (&actual.host, &actual.pod) {
        let id = query::netns_id(host, netns.as_fd())?;
        actual.paired = near.peer == Some(far.index)
            && far.peer == Some(near.index)
            && (id.is_some() && near.peer_netns == id);
    }
    let limited = wiring.bandwidth.ingress_rate > 0 || wiring.bandwidth.egress_rate > 0;
    if limited {
        let index = actual.host.as_ref().map(|link| link.index);
        let ifb = ifb_name(&wiring.host_ifname);
        actual.limits = query::limits(host, index, ifb.as_str())?;
    }
    if needs_local_routes(wiring) {
        actual.local_routes = sysctl::local_routes_allowed(&wiring.host_ifname);
    }
    if let (WiringDriver::Routed, Some(link)) = (&wiring.driver, &actual.host) {
        let routes = query::routes(host, link.index)?;
        actual.host_routes = routes.into_iter().map(|route| route.destination).collect();
        actual.host_neighbours = query::neighbours(host, link.index)?;
    }
    if let Some(link) = &actual.pod {
        actual.pod_addresses = query::addresses(pod, link.index)?;
        actual.pod_routes = query::routes(pod, link.index)?;
        actual.pod_neighbours = query::neighbours(pod, link.index)?;
    }
    Ok(actual)
}

/// The host's side, if it was renamed.
fn renamed(
    host: &mut Socket,
    wiring: &Wiring,
    pod: Option<&ActualLink>,
) -> std::io::Result<Option<ActualLink>> {
    let Some(index) = pod.filter(|p| p.kind == "veth").and_then(|p| p.peer) else {
        return Ok(None);
    };
    let found = query::link(host, LinkId::Index(index))?;
    Ok(found.filter(|link| link.kind == "veth" && link.mac == Some(wiring.host_mac)))
}
