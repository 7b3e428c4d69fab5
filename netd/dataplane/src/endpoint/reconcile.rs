//! Full sync of one endpoint: reads the kernel's state, plans, applies.

use std::os::fd::AsFd;

use super::{
    apply::Applier,
    check,
    indexes::Indexes,
    observed::{ActualEndpoint, ActualLink},
    plan::{Inside, needs_local_routes, plan_endpoint},
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
use netd_domain::{Mac, Wiring, WiringDriver};

/// Makes the endpoint as its wiring says, as far as `inside` allows. Returns the repairs.
pub(crate) fn repair(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
    inside: Inside,
) -> Result<Vec<Repair>, DataplaneError> {
    let Observed { bridge, actual, pod } = observe(kernel, netns, wiring)?;
    let ops = plan_endpoint(wiring, bridge, &actual, inside)?;
    let indexes = Indexes {
        pod_netns: actual.host.as_ref().and_then(|link| link.peer_netns),
        host: actual.host.as_ref().map_or(0, |link| link.index),
        pod: actual.host.as_ref().and_then(|link| link.peer).unwrap_or(0),
        bridge,
        ifb: actual.limits.ifb.map_or(0, |(index, _)| index),
    };
    let lives = indexes.host != 0;
    let mut applier = Applier::for_existing(kernel, netns, wiring, indexes, pod);
    applier.restores = inside == Inside::Restore;
    if lives {
        // What is set in the sandbox from here on is expected.
        applier.watch();
    }
    if let Err(e) = applier.apply(&ops) {
        applier.undo();
        return Err(e);
    }
    applier.watch();
    Ok(ops.iter().map(|op| op.repair(&wiring.host_ifname)).collect())
}

/// Whether the endpoint is there and works; what does not, in words. See [`check`].
pub(crate) fn find_failures(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Vec<String>, DataplaneError> {
    let Observed { bridge, actual, mut pod } = observe(kernel, netns, wiring)?;
    let mut failures = check::host_side(wiring, bridge, &actual);
    failures.extend(check::pod_side(wiring, &actual));
    if let Some(link) = actual.pod.as_ref().filter(|_| actual.paired) {
        let routes = check::find_unreachable(&mut pod, link.index, wiring, &actual);
        failures.extend(routes.map_err(failed(format!("{}: asking for routes", wiring.ifname)))?);
    }
    Ok(failures)
}

/// The MAC with which the sandbox sends, if the pair is there. A side that is another program's
/// bridge port by now (KubeVirt's) has a MAC of its own, with which nobody sends.
pub(crate) fn find_pod_mac(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Option<Mac>, DataplaneError> {
    let mut pod = pod_socket(netns)?;
    let pair = observe_pair(kernel, netns, &mut pod, wiring)
        .map_err(failed(format!("{}: reading its state", wiring.host_ifname)))?;
    let sends = |link: &ActualLink| link.master.is_none() && link.name == wiring.ifname.as_str();
    Ok(pair.pod.filter(|link| pair.paired && sends(link)).and_then(|link| link.mac))
}

/// How the sandbox's side differs from what netd made there, in words.
pub(crate) fn find_changes_inside(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Vec<String>, DataplaneError> {
    let Observed { actual, .. } = observe(kernel, netns, wiring)?;
    Ok(check::changes_inside(wiring, &actual))
}

/// The outcome of a look at the kernel.
struct Observed {
    bridge: Option<u32>,
    actual: ActualEndpoint,
    /// A socket in the sandbox.
    pod: Socket,
}

fn observe(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
) -> Result<Observed, DataplaneError> {
    if let WiringDriver::Bridge(name) = &wiring.driver {
        // Its index may be outdated: a repair follows when a bridge is replaced.
        kernel.shared.bridges.lock().remove(name);
    }
    let bridge = kernel.bridge(wiring)?;
    let mut pod = pod_socket(netns)?;
    let actual = observe_endpoint(kernel, netns, &mut pod, wiring)
        .map_err(failed(format!("{}: reading its state", wiring.host_ifname)))?;
    Ok(Observed { bridge, actual, pod })
}

fn observe_endpoint(
    kernel: &mut Context,
    netns: &Netns,
    pod: &mut Socket,
    wiring: &Wiring,
) -> std::io::Result<ActualEndpoint> {
    let mut actual = observe_pair(kernel, netns, pod, wiring)?;
    let host = &mut kernel.socket;
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

/// Both ends of the pair, as far as they are on the host and in the sandbox.
fn observe_pair(
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
        actual.host = find_renamed(host, wiring, actual.pod.as_ref())?;
    }
    let here = match &actual.host {
        Some(near) if near.peer_netns.is_some() => {
            query::netns_id(host, netns.as_fd())? == near.peer_netns
        }
        _ => false,
    };
    let far = match &actual.host {
        Some(near) if here => match near.peer {
            Some(index) if actual.pod.as_ref().is_some_and(|pod| pod.index == index) => {
                actual.pod.clone()
            }
            Some(index) => query::link(pod, LinkId::Index(index))?,
            None => None,
        },
        _ => None,
    };
    let far = far.filter(|far| far.peer == actual.host.as_ref().map(|near| near.index));
    actual.paired = far.is_some();
    actual.name_taken = match (&actual.pod, &far) {
        (Some(named), Some(far)) => named.index != far.index,
        (named, None) => named.is_some(),
        (None, Some(_)) => false,
    };
    actual.pod = far.or(actual.pod);
    Ok(actual)
}

/// The host's side, if it was renamed.
fn find_renamed(
    host: &mut Socket,
    wiring: &Wiring,
    pod: Option<&ActualLink>,
) -> std::io::Result<Option<ActualLink>> {
    let own = |link: &ActualLink| link.kind == "veth" && link.mac == Some(wiring.host_mac);
    if let Some(index) = pod.filter(|p| p.kind == "veth").and_then(|p| p.peer)
        && let Some(link) = query::link(host, LinkId::Index(index))?.filter(own)
    {
        return Ok(Some(link));
    }
    query::veth_with_mac(host, wiring.host_mac)
}
