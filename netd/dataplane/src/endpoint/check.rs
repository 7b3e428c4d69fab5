//! CHECK: whether what netd made is there and works. What others added or changed after netd is
//! no failure: plugins that come later in a chain set MTU, MAC and routes, and policy routing
//! moves routes to tables of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    observed::ActualEndpoint,
    op::{Op, Side},
    plan::{Inside, in_place, plan_endpoint, plan_inside},
};
use crate::netlink::{Batch, Socket, route};
use netd_domain::{Wiring, wiring::WiredAddress};

/// Addresses outside of every cluster (RFC 5737, RFC 3849): only a default route leads there.
const OUTSIDE: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The same in the lower half of IPv4 (RFC 6598).
const OUTSIDE_LOW: Ipv4Addr = Ipv4Addr::new(100, 127, 255, 254);

/// What differs on the host, where everything is netd's.
pub(super) fn host_side(
    wiring: &Wiring,
    bridge: Option<u32>,
    actual: &ActualEndpoint,
) -> Vec<String> {
    let host = &wiring.host_ifname;
    let ops = match plan_endpoint(wiring, bridge, actual, Inside::Nothing) {
        Ok(ops) => ops,
        Err(error) => return vec![error.to_string()],
    };
    let pair = ops.iter().find(|op| matches!(op, Op::DeleteLink | Op::CreateVeth));
    if let Some(op) = pair {
        return vec![format!("{host}: {}", op.difference())];
    }
    let ops = ops.into_iter().filter(|op| op.side() == Side::Host);
    ops.map(|op| format!("{host}: {}", op.difference())).collect()
}

/// What is missing in the sandbox: the link and its addresses.
pub(super) fn pod_side(wiring: &Wiring, actual: &ActualEndpoint) -> Vec<String> {
    let Some(pod) = actual.pod.as_ref().filter(|_| actual.host.is_some()) else {
        return vec![format!("{}: it is not in the sandbox", wiring.ifname)];
    };
    if !in_place(wiring, actual) {
        return vec![misplaced(wiring, actual)];
    }
    let mut found = Vec::new();
    if !pod.up {
        found.push(format!("{}: state is down, should be up", wiring.ifname));
    }
    for address in wiring.addresses.iter().filter(|a| !is_there(a, actual)) {
        found.push(format!("{}: address {} is missing", wiring.ifname, address.address));
    }
    found
}

/// Which gateways and destinations the pod's packets do not reach through the link `index`,
/// policy routing included. A default route may lead out by any link: of several interfaces one
/// has it.
///
/// # Errors
/// The socket's.
pub(super) fn find_unreachable(
    pod: &mut Socket,
    index: u32,
    wiring: &Wiring,
    actual: &ActualEndpoint,
) -> io::Result<Vec<String>> {
    let mut batch = Batch::new();
    let mut asked = Vec::new();
    for address in wiring.addresses.iter().filter(|a| is_there(a, actual)) {
        let own = address.address.addr();
        if let Some(gateway) = address.gateway {
            batch.route(route::look_up_from(gateway, own, Some(index)), 0);
            asked.push(format!("the gateway {gateway}"));
        }
        let routes = wiring.routes.iter().map(|route| route.destination);
        for to in routes.filter(|to| to.addr().is_ipv4() == own.is_ipv4()) {
            let default = to.prefix_len() == 0;
            let outside = [IpAddr::V4(OUTSIDE.0), OUTSIDE_LOW.into(), OUTSIDE.1.into()];
            // 0.0.0.0 is nobody's address.
            let probe = match to.addr().is_unspecified() {
                true => outside.into_iter().find(|ip| to.contains(ip)).unwrap_or(to.addr()),
                false => to.addr(),
            };
            batch.route(route::look_up_from(probe, own, Some(index)), 0);
            asked.push(to.to_string());
            if default {
                batch.route(route::look_up_from(probe, own, None), 0);
                asked.push(to.to_string());
            }
        }
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let mut unreachable: Vec<String> = Vec::new();
    let answers = asked.into_iter().zip(pod.batch(batch)?);
    let answers: Vec<_> = answers.collect();
    for (to, _) in answers.iter().filter(|(_, answer)| answer.is_err()) {
        let works = answers.iter().any(|(other, answer)| other == to && answer.is_ok());
        let text = format!("{}: no route to {to}", wiring.ifname);
        if !works && !unreachable.contains(&text) {
            unreachable.push(text);
        }
    }
    Ok(unreachable)
}

/// How the sandbox's side differs from what netd made there.
pub(super) fn changes_inside(wiring: &Wiring, actual: &ActualEndpoint) -> Vec<String> {
    if actual.host.is_none() {
        return vec![format!("{}: the veth pair is missing", wiring.ifname)];
    }
    let mut found = Vec::new();
    if !in_place(wiring, actual) {
        found.push(misplaced(wiring, actual));
    }
    if actual.paired {
        let mut ops = Vec::new();
        plan_inside(wiring, actual, true, &mut ops);
        found.extend(ops.iter().map(|op| format!("{}: {}", wiring.ifname, op.difference())));
    }
    found
}

fn misplaced(wiring: &Wiring, actual: &ActualEndpoint) -> String {
    let name = &wiring.ifname;
    match actual.pod.as_ref().filter(|_| actual.paired) {
        Some(pod) => format!("{name}: its name is {} now", pod.name),
        None => format!("{name}: the other end of {} is not in the sandbox", wiring.host_ifname),
    }
}

fn is_there(address: &WiredAddress, actual: &ActualEndpoint) -> bool {
    actual.pod_addresses.iter().any(|net| net.addr() == address.address.addr())
}
