//! BPF programs that drop events before the kernel queues them. The kernel copies every
//! event for each listener while it holds the rtnl lock, and an attach causes some forty.

use super::parse::{
    DEL_ADDRESS, DEL_LINK, DEL_NEIGHBOUR, DEL_ROUTE, NEW_ADDRESS, NEW_LINK, NEW_NEIGHBOUR,
    NEW_NETCONF, NEW_ROUTE,
};
use crate::netlink::route::NETD_PROTOCOL;

/// Offsets from the start of the message.
const TYPE: u32 = 4;
const PORT: u32 = 12;
const LINK_FAMILY: u32 = 16;
const LINK_TYPE: u32 = 18;
const LINK_FLAGS: u32 = 24;
const LINK_CHANGED: u32 = 28;
const NEIGHBOUR_FAMILY: u32 = 16;
const NEIGHBOUR_FLAGS: u32 = 26;
const ROUTE_TABLE: u32 = 20;
const ROUTE_PROTOCOL: u32 = 21;
/// Where the lowest byte of a 32-bit number is.
const LOW: u32 = if cfg!(target_endian = "little") { 0 } else { 3 };
const ALL: u32 = u32::MAX;
const UP: u32 = 1;
/// `ARPHRD_NONE`: tun and wireguard devices.
const NO_LINK_LAYER: u16 = 0xfffe;
/// `AF_BRIDGE`.
const BRIDGE: u32 = 7;
/// `NTF_SELF`.
const OWN_ENTRY: u32 = 2;
/// Length of a forwarding entry's message with a MAC and a VLAN.
const SHORT_ENTRY: u32 = 48;
const MAIN_TABLE: u32 = 254;
const KERNEL_PROTOCOL: u32 = 2;

/// Classic BPF (uapi/linux/filter.h).
const WORD: u16 = 0x20;
const HALF: u16 = 0x28;
const BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const ANY_BIT: u16 = 0x45;
const GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;

enum Line {
    Mark(&'static str),
    Load(u16, u32),
    /// Goes to the mark if the comparison holds.
    If(u16, u32, &'static str),
    Return(u32),
}

/// Passes links that went down or whose settings changed (not new ones, not those that
/// came up, not other families'), whatever is gone, routes of the main table that are
/// neither ours nor the kernel's own, and neighbours; nothing that the socket with port
/// `quiet` caused. (A socket in another namespace could have the same port, but the kernel
/// draws ports at random from two thousand million.)
pub(super) fn everywhere(quiet: u32) -> Vec<libc::sock_filter> {
    use Line::{If, Load, Mark, Return};
    assemble(&[
        Load(WORD, PORT),
        If(EQUAL, quiet.to_be(), "drop"),
        Load(HALF, TYPE),
        If(EQUAL, kind(NEW_LINK), "link"),
        If(EQUAL, kind(NEW_ROUTE), "new route"),
        If(EQUAL, kind(DEL_ROUTE), "route"),
        If(EQUAL, kind(DEL_LINK), "pass"),
        If(EQUAL, kind(DEL_ADDRESS), "pass"),
        If(EQUAL, kind(NEW_NEIGHBOUR), "neighbour"),
        If(EQUAL, kind(DEL_NEIGHBOUR), "neighbour"),
        Return(0),
        Mark("link"),
        Load(BYTE, LINK_FAMILY),
        If(ANY_BIT, 0xff, "drop"),
        Load(WORD, LINK_CHANGED),
        If(EQUAL, 0, "pass"),
        If(EQUAL, ALL, "drop"),
        Load(BYTE, LINK_CHANGED + LOW),
        If(ANY_BIT, UP, "switched"),
        Return(0),
        Mark("switched"),
        Load(BYTE, LINK_FLAGS + LOW),
        If(ANY_BIT, UP, "drop"),
        Return(ALL),
        Mark("neighbour"),
        Load(BYTE, NEIGHBOUR_FAMILY),
        If(EQUAL, BRIDGE, "forwarding entry"),
        Return(ALL),
        // Of a device's own, and with where it leads to: of each the kernel sends one
        // message with and one without.
        Mark("forwarding entry"),
        Load(BYTE, NEIGHBOUR_FLAGS),
        If(ANY_BIT, OWN_ENTRY, "own entry"),
        Return(0),
        Mark("own entry"),
        Load(BYTE, LOW),
        If(GREATER, SHORT_ENTRY, "pass"),
        Return(0),
        Mark("new route"),
        Load(BYTE, ROUTE_PROTOCOL),
        If(EQUAL, u32::from(NETD_PROTOCOL), "drop"),
        If(EQUAL, KERNEL_PROTOCOL, "drop"),
        Mark("route"),
        Load(BYTE, ROUTE_TABLE),
        If(EQUAL, MAIN_TABLE, "pass"),
        Mark("drop"),
        Return(0),
        Mark("pass"),
        Return(ALL),
    ])
}

/// Passes settings, new addresses, links that came up and are not new, and whatever
/// happens to links without a link layer (tunnels); nothing that the socket with port
/// `quiet` caused.
pub(super) fn on_the_host(quiet: u32) -> Vec<libc::sock_filter> {
    use Line::{If, Load, Mark, Return};
    assemble(&[
        Load(WORD, PORT),
        If(EQUAL, quiet.to_be(), "drop"),
        Load(HALF, TYPE),
        If(EQUAL, kind(NEW_NETCONF), "pass"),
        If(EQUAL, kind(NEW_ADDRESS), "pass"),
        If(EQUAL, kind(NEW_LINK), "link"),
        Return(0),
        Mark("link"),
        Load(BYTE, LINK_FAMILY),
        If(ANY_BIT, 0xff, "drop"),
        Load(HALF, LINK_TYPE),
        If(EQUAL, kind(NO_LINK_LAYER), "pass"),
        Load(WORD, LINK_CHANGED),
        If(EQUAL, ALL, "drop"),
        Load(BYTE, LINK_CHANGED + LOW),
        If(ANY_BIT, UP, "switched"),
        Return(0),
        Mark("switched"),
        Load(BYTE, LINK_FLAGS + LOW),
        If(ANY_BIT, UP, "pass"),
        Mark("drop"),
        Return(0),
        Mark("pass"),
        Return(ALL),
    ])
}

/// Loads are big-endian.
fn kind(kind: u16) -> u32 {
    u32::from(kind.to_be())
}

fn assemble(lines: &[Line]) -> Vec<libc::sock_filter> {
    let is_mark = |line: &&Line| matches!(line, Line::Mark(_));
    let target = |name: &str| {
        let at = lines.iter().position(|line| matches!(line, Line::Mark(mark) if *mark == name));
        let before = &lines[..at.unwrap_or(lines.len())];
        before.len() - before.iter().filter(is_mark).count()
    };
    let mut program: Vec<libc::sock_filter> = Vec::with_capacity(lines.len());
    for line in lines {
        let next = program.len() + 1;
        let (code, k, jt) = match line {
            Line::Mark(_) => continue,
            Line::Load(size, offset) => (*size, *offset, 0),
            Line::If(test, value, mark) => (*test, *value, (target(mark) - next) as u8),
            Line::Return(length) => (RETURN, *length, 0),
        };
        program.push(libc::sock_filter { code, jt, jf: 0, k });
    }
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: u32 = 0x8000_1234;

    fn passes(message: &[u8]) -> bool {
        run(everywhere(QUIET), message)
    }

    /// Runs the program as the kernel does; whether the message passes.
    fn run(program: Vec<libc::sock_filter>, message: &[u8]) -> bool {
        let (mut at, mut a) = (0, 0u32);
        loop {
            let op = program[at];
            let load = |n: usize| {
                let k = op.k as usize;
                message[k..k + n].iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte))
            };
            let jump = |holds: bool| if holds { usize::from(op.jt) } else { usize::from(op.jf) };
            at += 1;
            match op.code {
                WORD => a = load(4),
                HALF => a = load(2),
                BYTE => a = load(1),
                EQUAL => at += jump(a == op.k),
                ANY_BIT => at += jump(a & op.k != 0),
                GREATER => at += jump(a > op.k),
                RETURN => return op.k != 0,
                other => panic!("{other}"),
            }
        }
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut all = vec![0; 16];
        all[4..6].copy_from_slice(&kind.to_ne_bytes());
        all.extend_from_slice(body);
        all.resize(64, 0);
        all[..4].copy_from_slice(&64u32.to_ne_bytes());
        all
    }

    fn link(family: u8, flags: u32, changed: u32) -> bool {
        let mut body = vec![family, 0, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(&flags.to_ne_bytes());
        body.extend_from_slice(&changed.to_ne_bytes());
        passes(&message(NEW_LINK, &body))
    }

    #[test]
    fn links_pass_when_they_went_down_or_their_settings_changed() {
        let running = 0x40;
        assert!(link(0, UP, 0) && link(0, 0, 0), "settings");
        assert!(link(0, 0, UP) && link(0, running, UP | running), "down");
        assert!(!link(0, UP, UP) && !link(0, UP | running, UP | running), "up");
        assert!(!link(0, 0, u32::MAX) && !link(0, UP, u32::MAX), "new");
        assert!(!link(0, UP, 0x100), "promiscuous");
        assert!(!link(7, 0, 0), "a bridge's view of a port");
    }

    #[test]
    fn routes_pass_when_they_are_not_ours_and_in_the_main_table() {
        let route =
            |kind, table, protocol| passes(&message(kind, &[2, 0, 0, 0, table, protocol, 0, 1]));
        assert!(route(DEL_ROUTE, 254, 110) && route(DEL_ROUTE, 254, 2));
        assert!(route(NEW_ROUTE, 254, 3) && route(NEW_ROUTE, 254, 9));
        assert!(!route(NEW_ROUTE, 254, 110) && !route(NEW_ROUTE, 254, 2));
        assert!(!route(NEW_ROUTE, 255, 3) && !route(DEL_ROUTE, 255, 2));
    }

    #[test]
    fn what_is_gone_passes_and_what_is_new_does_not() {
        for kind in [DEL_LINK, DEL_ADDRESS, NEW_NEIGHBOUR, DEL_NEIGHBOUR] {
            assert!(passes(&message(kind, &[])), "{kind}");
            let mut ours = message(kind, &[]);
            ours[12..16].copy_from_slice(&QUIET.to_ne_bytes());
            assert!(!passes(&ours), "{kind}");
        }
        assert!(!passes(&message(NEW_ADDRESS, &[])) && !passes(&message(0, &[])));
    }

    #[test]
    fn forwarding_entries_pass_when_they_are_a_devices_own_and_whole() {
        let entry = |flags| message(NEW_NEIGHBOUR, &[7, 0, 0, 0, 1, 0, 0, 0, 0x80, 0, flags, 0]);
        assert!(passes(&entry(2)));
        assert!(!passes(&entry(0)), "a bridge learnt it");
        let mut short = entry(2);
        short[..4].copy_from_slice(&40u32.to_ne_bytes());
        assert!(!passes(&short), "without where it leads to");
    }

    #[test]
    fn of_the_host_settings_new_addresses_and_links_that_came_up_pass() {
        let typed = |kind: u16, flags: u32, changed: u32| {
            let mut body = vec![0; 8];
            body[2..4].copy_from_slice(&kind.to_ne_bytes());
            body.extend_from_slice(&flags.to_ne_bytes());
            body.extend_from_slice(&changed.to_ne_bytes());
            run(on_the_host(QUIET), &message(NEW_LINK, &body))
        };
        let link = |flags, changed| typed(1, flags, changed);
        assert!(typed(NO_LINK_LAYER, 0, u32::MAX), "a new tunnel");
        assert!(link(UP, UP));
        assert!(!link(0, UP) && !link(UP, 0) && !link(UP, u32::MAX));
        for kind in [NEW_NETCONF, NEW_ADDRESS] {
            assert!(run(on_the_host(QUIET), &message(kind, &[])), "{kind}");
        }
        assert!(!run(on_the_host(QUIET), &message(DEL_ADDRESS, &[])));
    }
}
