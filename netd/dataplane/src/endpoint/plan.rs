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

/// What a plan may do inside the sandbox. Once the attach is answered, the pod's side is the
/// pod's: a network stack of its own, a virtual machine or a later plugin may have taken over
/// what netd made there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Nothing, as long as the pair exists, wherever its other end is. A pair whose other end
    /// was never set up is completed: netd was stopped in the midst of an attach.
    Nothing,
    /// Whatever is missing. Only a pair whose other end is in another namespace is made again.
    Complete,
    /// Whatever differs. A pair whose other end has another name or place is made again.
    Restore,
}

/// The steps from `actual` to `desired`; none if they are equal. `bridge` is the index of the
/// bridge that the host side is to be a port of.
///
/// # Errors
/// `InterfaceExists` when the host or the sandbox has an interface of the name that netd did
/// not make.
pub(crate) fn plan_endpoint(
    desired: &Wiring,
    bridge: Option<u32>,
    actual: &ActualEndpoint,
    inside: Inside,
) -> Result<Vec<Op>, DataplaneError> {
    let mut ops = Vec::new();
    if actual.host.as_ref().is_some_and(|host| host.kind != "veth") {
        let ifname = desired.host_ifname.clone();
        return Err(DataplaneError::InterfaceExists { ifname, place: "the host" });
    }
    let lives = actual.host.as_ref().is_some_and(|host| !is_detached(host.group));
    let keep = match inside {
        Inside::Nothing => true,
        Inside::Complete => actual.paired,
        Inside::Restore => in_place(desired, actual),
    };
    if lives && keep {
        plan_kept(desired, bridge, actual, inside, &mut ops);
        return Ok(ops);
    }
    if actual.name_taken {
        return Err(occupied(desired));
    }
    if actual.host.is_some() {
        ops.push(Op::DeleteLink);
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
    let forwarding = forwards(desired);
    let host = LinkChange { hairpin: port, no_autoconf: true, forwarding, ..LinkChange::default() };
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
    plan_endpoint(desired, None, &ActualEndpoint::default(), Inside::Complete)
}

/// Whether the other end of the pair is in the sandbox under its name.
pub(super) fn in_place(desired: &Wiring, actual: &ActualEndpoint) -> bool {
    let named = |pod: &ActualLink| pod.name == desired.ifname.as_str();
    actual.paired && actual.pod.as_ref().is_some_and(named)
}

/// Whether the sandbox's side is as `CreateVeth` leaves it. Its settings come in one batch, of
/// which the first is that the kernel makes no address of its own.
fn is_untouched(actual: &ActualEndpoint) -> bool {
    let Some(pod) = &actual.pod else { return false };
    !pod.up && actual.pod_addresses.is_empty() && !(pod.ipv6 && pod.no_autoconf)
}

fn occupied(desired: &Wiring) -> DataplaneError {
    DataplaneError::InterfaceExists { ifname: desired.ifname.clone(), place: "the sandbox" }
}

fn plan_kept(
    desired: &Wiring,
    bridge: Option<u32>,
    actual: &ActualEndpoint,
    inside: Inside,
    ops: &mut Vec<Op>,
) {
    let Some(host) = &actual.host else { return };
    let mut host = host.clone();
    let mut left = actual.clone();
    if host.name != desired.host_ifname.as_str() {
        let (from, to) = (host.name.clone(), desired.host_ifname.clone());
        ops.extend([Op::LowerHostLink, Op::RenameHostLink { from, to }]);
        // These go with a link that is down.
        host.up = false;
        left.host_routes.clear();
    }
    let port = matches!(desired.driver, WiringDriver::Bridge(_));
    let master = match port {
        true => bridge.and_then(|to| Change::needed(host.master, to)),
        false => host.master.map(|from| Change { from: Some(from), to: 0 }),
    };
    let change = LinkChange {
        master,
        group: Change::needed(Some(host.group), ENDPOINT_GROUP),
        // A link that becomes a port has none yet.
        hairpin: port && (master.is_some() || !host.hairpin),
        forwarding: forwards(desired) && !host.forwarding,
        ..settings(&host, host_mtu(desired, actual, inside), desired.host_mac)
    };
    push_change(change, Op::SetHostLink, ops);
    if change.loses_neighbours() {
        left.host_neighbours.clear();
    }
    plan_host(desired, &left, ops);
    let complete = inside != Inside::Nothing || is_untouched(actual);
    if complete && in_place(desired, actual) {
        // Completing adds what is missing; MTU and MAC may be another plugin's.
        plan_inside(desired, &left, inside == Inside::Restore, ops);
    } else if follows_mtu(desired, actual) {
        let mtu = actual.pod.as_ref().and_then(|pod| Change::needed(Some(pod.mtu), desired.mtu));
        push_change(LinkChange { mtu, ..LinkChange::default() }, Op::SetPodLink, ops);
    }
    if !complete && has_another_mac(desired, actual) {
        // The kernel has dropped the entry of the next hop with the old MAC, and nobody but netd
        // knows the next hop's.
        plan_next_hops(desired, actual, ops);
    }
}

/// The host side's MTU. What is longer than the MTU of the other end the kernel drops without a
/// word, so it stays that of a sandbox's side that others have taken over.
fn host_mtu(desired: &Wiring, actual: &ActualEndpoint, inside: Inside) -> u32 {
    let taken_over = inside == Inside::Nothing && !is_untouched(actual) && !owns(desired, actual);
    let kept = if actual.paired { actual.pod.as_ref() } else { actual.host.as_ref() };
    kept.filter(|_| taken_over).map_or(desired.mtu, |link| link.mtu)
}

/// Whether the MTU of the sandbox's side is the one that netd gave it, and follows the network's:
/// that of both ends. A plugin that came later has set that of the sandbox's alone.
fn follows_mtu(desired: &Wiring, actual: &ActualEndpoint) -> bool {
    let mtu = |link: &Option<ActualLink>| link.as_ref().map(|link| link.mtu);
    owns(desired, actual) && mtu(&actual.pod) == mtu(&actual.host)
}

/// Whether the sandbox's side is in its place and has its addresses.
fn owns(desired: &Wiring, actual: &ActualEndpoint) -> bool {
    let has = |ip: IpAddr| actual.pod_addresses.iter().any(|net| net.addr() == ip);
    in_place(desired, actual) && desired.ips().all(has)
}

/// The steps in the sandbox for the other end of a pair that exists.
pub(super) fn plan_inside(
    desired: &Wiring,
    actual: &ActualEndpoint,
    restore: bool,
    ops: &mut Vec<Op>,
) {
    let Some(pod) = &actual.pod else { return };
    let mut change = settings(pod, desired.mtu, desired.mac);
    if !restore {
        change.mac = None;
        change.mtu = change.mtu.filter(|_| follows_mtu(desired, actual));
    }
    push_change(change, Op::SetPodLink, ops);
    if change.loses_neighbours() {
        let left = ActualEndpoint { pod_neighbours: Vec::new(), ..actual.clone() };
        plan_pod(desired, &left, ops);
    } else {
        plan_pod(desired, actual, ops);
    }
}

/// In up to three messages: autoconfiguration has to be off before the link comes up, and the
/// kernel handles a port's settings before it makes the link a port.
fn push_change(change: LinkChange, op: fn(LinkChange) -> Op, ops: &mut Vec<Op>) {
    let none = LinkChange::default();
    let LinkChange { no_autoconf, forwarding, hairpin, .. } = change;
    let rest = LinkChange { no_autoconf: false, forwarding: false, hairpin: false, ..change };
    let families = LinkChange { no_autoconf, forwarding, ..none };
    let parts = [families, rest, LinkChange { hairpin, ..none }];
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
            let neighbour = neighbour(&actual.host_neighbours, ip, mac_of(desired, actual));
            ops.extend(neighbour.map(Op::HostNeighbour));
        }
    }
    if needs_local_routes(desired) && !actual.local_routes {
        ops.push(Op::LocalRoutes);
    }
    plan_limits(desired, &actual.limits, ops);
}

/// The MAC that the pod's addresses are at. A virtual machine in the pod has taken over the one
/// that netd gave, with the addresses.
fn mac_of(desired: &Wiring, actual: &ActualEndpoint) -> Mac {
    match has_another_mac(desired, actual) {
        true => desired.pod_mac.unwrap_or(desired.mac),
        false => desired.mac,
    }
}

/// Whether another program has given the sandbox's side, which has its addresses, another MAC.
fn has_another_mac(desired: &Wiring, actual: &ActualEndpoint) -> bool {
    let mac = actual.pod.as_ref().and_then(|pod| pod.mac);
    desired.pod_mac.is_some() && mac == desired.pod_mac && owns(desired, actual)
}

/// Whether the pod's IPv4 packets come in by the host's side itself, and not by a bridge.
fn forwards(desired: &Wiring) -> bool {
    desired.driver == WiringDriver::Routed && desired.ips().any(|ip| ip.is_ipv4())
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
    plan_next_hops(desired, actual, ops);
    for route in &desired.routes {
        if !actual.pod_routes.contains(route) {
            ops.push(Op::PodRoute(route.clone()));
        }
    }
}

fn plan_next_hops(desired: &Wiring, actual: &ActualEndpoint, ops: &mut Vec<Op>) {
    if desired.driver != WiringDriver::Routed {
        return;
    }
    // Additional interfaces have another next hop than the well-known one.
    for gateway in desired.addresses.iter().filter_map(|a| a.gateway) {
        let neighbour = neighbour(&actual.pod_neighbours, gateway, desired.host_mac);
        ops.extend(neighbour.map(Op::PodNeighbour));
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
