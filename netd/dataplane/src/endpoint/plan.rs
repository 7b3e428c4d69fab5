//! Compares a wiring with the kernel's state, and names the steps between them. Pure.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::{
    limit,
    observed::{ActualEndpoint, ActualLimits, ActualLink},
    op::{Change, LinkChange, Neighbour, Op, Shape, Shaped},
};
use crate::{
    DataplaneError,
    netlink::link_group::{ENDPOINT_GROUP, is_detached},
};
use netd_domain::{Mac, Wiring, WiringDriver};

/// The steps from `actual` to `desired`; none if they are equal. `bridge` is the index of the
/// bridge that the host side is to be a port of.
///
/// # Errors
/// `InterfaceExists` when the sandbox has an interface of the name that netd did not make.
pub(crate) fn plan_endpoint(
    desired: &Wiring,
    bridge: Option<u32>,
    actual: &ActualEndpoint,
) -> Result<Vec<Op>, DataplaneError> {
    let keep = actual.host.as_ref().is_some_and(|host| is_repairable(desired, host, actual));
    let mut ops = Vec::new();
    if keep {
        plan_kept(desired, bridge, actual, &mut ops);
        return Ok(ops);
    }
    match (&actual.host, &actual.pod) {
        (None, Some(_)) => return Err(occupied(desired)),
        (Some(_), Some(_)) if !actual.paired => return Err(occupied(desired)),
        (Some(_), _) => ops.push(Op::DeleteLink),
        (None, None) => {}
    }
    // The routes, neighbours and limits go with the pair; the intermediate device stays.
    let limits = ActualLimits {
        ifb: actual.limits.ifb,
        from_pod: actual.limits.from_pod,
        ..ActualLimits::default()
    };
    let nothing =
        ActualEndpoint { loopback_up: actual.loopback_up, limits, ..ActualEndpoint::default() };
    ops.push(Op::CreateVeth);
    let port = matches!(desired.driver, WiringDriver::Bridge(_));
    let host = LinkChange { hairpin: port, no_autoconf: true, ..LinkChange::default() };
    ops.push(Op::SetHostLink(host));
    plan_host(desired, &nothing, &mut ops);
    // Before the link comes up, or the kernel makes an address of its own at once.
    ops.push(Op::SetPodLink(LinkChange { no_autoconf: true, ..LinkChange::default() }));
    ops.push(Op::SetPodLink(LinkChange { up: true, ..LinkChange::default() }));
    plan_pod(desired, &nothing, &mut ops);
    Ok(ops)
}

/// The steps of a first attach, when the kernel has nothing of the endpoint.
///
/// # Errors
/// None for an empty sandbox.
pub(crate) fn plan_new(desired: &Wiring) -> Result<Vec<Op>, DataplaneError> {
    plan_endpoint(desired, None, &ActualEndpoint::default())
}

/// Whether the pair is in its place and needs only settings.
fn is_repairable(desired: &Wiring, host: &ActualLink, actual: &ActualEndpoint) -> bool {
    let routed = matches!(desired.driver, WiringDriver::Routed);
    actual.paired
        && host.kind == "veth"
        && host.name == desired.host_ifname.as_str()
        && !is_detached(host.group)
        && !(routed && host.master.is_some())
}

fn occupied(desired: &Wiring) -> DataplaneError {
    DataplaneError::InterfaceExists { ifname: desired.ifname.clone(), place: "the sandbox" }
}

fn plan_kept(desired: &Wiring, bridge: Option<u32>, actual: &ActualEndpoint, ops: &mut Vec<Op>) {
    let (Some(host), Some(pod)) = (&actual.host, &actual.pod) else { return };
    let port = matches!(desired.driver, WiringDriver::Bridge(_));
    let master = bridge.filter(|_| port).and_then(|to| Change::needed(host.master, to));
    let change = LinkChange {
        master,
        // A link that becomes a port has none yet.
        hairpin: port && (master.is_some() || !host.hairpin),
        group: Change::needed(Some(host.group), ENDPOINT_GROUP),
        ..settings(host, desired.mtu, desired.host_mac)
    };
    push_change(change, Op::SetHostLink, ops);
    let mut left = actual.clone();
    if change.loses_neighbours() {
        left.host_neighbours.clear();
    }
    let change = settings(pod, desired.mtu, desired.mac);
    if change.loses_neighbours() {
        left.pod_neighbours.clear();
    }
    plan_host(desired, &left, ops);
    push_change(change, Op::SetPodLink, ops);
    plan_pod(desired, &left, ops);
}

/// In up to three messages: autoconfiguration has to be off before the link comes up, and the
/// kernel handles a port's settings before it makes the link a port.
fn push_change(change: LinkChange, op: fn(LinkChange) -> Op, ops: &mut Vec<Op>) {
    let none = LinkChange::default();
    let (no_autoconf, hairpin) = (change.no_autoconf, change.hairpin);
    let rest = LinkChange { no_autoconf: false, hairpin: false, ..change };
    let parts = [LinkChange { no_autoconf, ..none }, rest, LinkChange { hairpin, ..none }];
    ops.extend(parts.into_iter().filter(|part| !part.is_empty()).map(op));
}

/// The settings that both sides have.
fn settings(link: &ActualLink, mtu: u32, mac: Mac) -> LinkChange {
    LinkChange {
        up: !link.up,
        mtu: Change::needed(Some(link.mtu), mtu),
        mac: Change::needed(link.mac, mac),
        no_autoconf: !link.no_autoconf,
        ..LinkChange::default()
    }
}

fn plan_host(desired: &Wiring, actual: &ActualEndpoint, ops: &mut Vec<Op>) {
    if desired.driver == WiringDriver::Routed {
        for ip in desired.addresses.iter().map(|a| a.address.addr()) {
            if !actual.host_routes.contains(&IpNet::from(ip)) {
                ops.push(Op::HostRoute(IpNet::from(ip)));
            }
            let neighbour = neighbour(&actual.host_neighbours, ip, desired.mac);
            ops.extend(neighbour.map(Op::HostNeighbour));
        }
    }
    if needs_local_routes(desired) && !actual.local_routes {
        ops.push(Op::LocalRoutes);
    }
    plan_limits(desired, &actual.limits, ops);
}

/// Packets from 127.0.0.1 to host ports go out of the link of a routed endpoint, and out of the
/// bridge of the others. The network sets the bridge's settings.
pub(crate) fn needs_local_routes(desired: &Wiring) -> bool {
    desired.driver == WiringDriver::Routed
        && !desired.port_mappings.is_empty()
        && desired.addresses.iter().any(|a| a.address.addr().is_ipv4())
}

fn neighbour(actual: &[(IpAddr, Mac)], ip: IpAddr, mac: Mac) -> Option<Neighbour> {
    let from = actual.iter().find(|(other, _)| *other == ip).map(|(_, mac)| *mac);
    Change::needed(from, mac).map(|mac| Neighbour { ip, mac })
}

fn plan_limits(desired: &Wiring, actual: &ActualLimits, ops: &mut Vec<Op>) {
    let limit = |from: Option<Shape>, to: Shape| {
        let same = from.is_some_and(|from| limit::same(&from, &to));
        (!same).then_some(Change { from, to })
    };
    if let Some(shape) = limit::to_pod(desired) {
        let change = limit(actual.to_pod, shape);
        ops.extend(change.map(|change| Op::Limit(Shaped::HostLink, change)));
    }
    let Some(shape) = limit::from_pod(desired) else { return };
    match actual.ifb {
        None => ops.push(Op::CreateIfb { mtu: desired.mtu }),
        Some((_, false)) => ops.push(Op::IfbUp),
        Some((_, true)) => {}
    }
    let change = limit(actual.from_pod, shape);
    ops.extend(change.map(|change| Op::Limit(Shaped::Ifb, change)));
    if !actual.hook {
        ops.push(Op::IngressHook);
    }
    if actual.redirect.is_none() || actual.redirect != actual.ifb.map(|(index, _)| index) {
        ops.push(Op::Redirect);
    }
}

fn plan_pod(desired: &Wiring, actual: &ActualEndpoint, ops: &mut Vec<Op>) {
    if !actual.loopback_up {
        ops.push(Op::PodLoopbackUp);
    }
    for address in pod_addresses(desired) {
        let wrong = |net: &&IpNet| net.addr() == address.addr() && **net != address;
        if let Some(net) = actual.pod_addresses.iter().find(wrong) {
            ops.push(Op::RemovePodAddress(*net));
        }
        if !actual.pod_addresses.contains(&address) {
            ops.push(Op::PodAddress(address));
        }
    }
    if desired.driver == WiringDriver::Routed {
        // Additional interfaces have another next hop than the well-known one.
        for gateway in desired.addresses.iter().filter_map(|a| a.gateway) {
            let neighbour = neighbour(&actual.pod_neighbours, gateway, desired.host_mac);
            ops.extend(neighbour.map(Op::PodNeighbour));
        }
    }
    for route in &desired.routes {
        if !actual.pod_routes.contains(route) {
            ops.push(Op::PodRoute(route.clone()));
        }
    }
}

/// The addresses of the sandbox's side: with IPv6 also the link-local one.
fn pod_addresses(desired: &Wiring) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = desired.addresses.iter().map(|a| a.address).collect();
    if all.iter().any(|net| matches!(net, IpNet::V6(_))) {
        // netd adds it, because the kernel would run DAD for one of its own.
        const PREFIX: u8 = 64;
        all.push(IpNet::V6(Ipv6Net::new_assert(desired.mac.link_local(), PREFIX)));
    }
    all
}
