//! For fuzzing: the kernel's messages through every reader, and what is made of wirings.

use crate::{
    FirewallState,
    endpoint::plan,
    events,
    firewall::{self, FirewallSettings},
    netlink::{
        self, address, neighbour, overlay_device, overlay_entry, query, route, tc, wireguard,
    },
};
use netd_domain::Wiring;

/// Bytes of a netlink socket: a first byte that says whose (0: the host's), datagrams.
pub fn netlink(bytes: &[u8]) {
    let Some((from, datagram)) = bytes.split_first() else { return };
    let nsid = (*from != 0).then_some(i32::from(*from));
    let mut table = events::fuzz_table();
    for message in netlink::cut(datagram, nsid) {
        let _ = netlink::outcome(&message.bytes);
        table.judge(&message, from & 1 == 1);
        let _ = query::read_link(&message);
        let _ = query::read_route(&message);
        let _ = (tc::read_limit(&message), tc::read_hook(&message), tc::read_redirect(&message));
        read_decoded(&message);
        read_overlay(&message);
        firewall::fuzz(&message);
    }
}

fn read_overlay(message: &netlink::Received) {
    let body = message.body();
    let _ = (
        overlay_entry::read_neighbour(body),
        overlay_entry::read_route(body),
        route::read_answer(body),
    );
    let _ = (
        address::read_body(body),
        overlay_device::read(message),
        overlay_device::read_counters(message),
    );
    let _ = wireguard::read_family(message);
    let _ = wireguard::read_device(std::slice::from_ref(message));
}

fn read_decoded(message: &netlink::Received) {
    use netlink_packet_route::RouteNetlinkMessage::{NewAddress, NewNeighbour};
    match message.route() {
        Some(NewAddress(address)) => drop(address::read(&address)),
        Some(NewNeighbour(neighbour)) => drop(neighbour::read(&neighbour)),
        _ => {}
    }
}

/// The rules of a whole state.
pub fn state(state: &FirewallState) {
    firewall::fuzz_state(&FirewallSettings::default(), state);
}

/// The plan that makes an endpoint, and what it says in a log.
pub fn plan(wiring: &Wiring) {
    let ops = plan::plan_new(wiring).unwrap_or_default();
    assert!(!ops.is_empty(), "an endpoint that needs nothing");
    for op in ops {
        let _ = (op.to_string(), op.difference());
    }
}
