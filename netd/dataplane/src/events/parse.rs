//! The few fields of an event that matter. Events come by the ten thousand while pods
//! are attached, so they are not decoded as a whole.

use std::net::IpAddr;

use crate::netlink::{
    Received,
    attribute::{self, ip},
};

/// Message types (uapi/linux/rtnetlink.h).
pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DEL_ADDRESS: u16 = 21;
pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DEL_ROUTE: u16 = 25;
pub(super) const NEW_NEIGHBOUR: u16 = 28;
pub(super) const DEL_NEIGHBOUR: u16 = 29;
pub(super) const NEW_NETCONF: u16 = 80;

const UP: u32 = 1;
const LOWER_UP: u32 = 1 << 16;

/// A link message. `None` attributes were not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LinkEvent {
    pub index: u32,
    pub up: bool,
    /// The other end is up too (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// Which flags the event is about; all bits: the link is new.
    pub changed: u32,
    pub name: String,
    pub mtu: u32,
    /// Packets that may wait in it.
    pub queue: u32,
    pub mac: [u8; 6],
    pub master: Option<u32>,
    pub group: u32,
}

impl LinkEvent {
    /// The event says that the link went down.
    pub(super) fn went_down(&self) -> bool {
        self.changed & UP != 0 && self.changed != u32::MAX && !self.up
    }

    /// The event says that the link came up.
    pub(super) fn came_up(&self) -> bool {
        self.changed & UP != 0 && self.changed != u32::MAX && self.up
    }
}

/// Reads a link message; `None` for one about a bridge port (another family's).
pub(super) fn link(body: &[u8]) -> Option<LinkEvent> {
    const HEADER: usize = 16;
    const FAMILY_ANY: u8 = 0;
    if *body.first()? != FAMILY_ANY {
        return None;
    }
    let mut event = LinkEvent {
        index: attribute::u32_at(body, 4)?,
        up: attribute::u32_at(body, 8)? & UP != 0,
        carrier: attribute::u32_at(body, 8)? & LOWER_UP != 0,
        changed: attribute::u32_at(body, 12)?,
        ..LinkEvent::default()
    };
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
        match kind {
            1 => event.mac = value.try_into().unwrap_or_default(),
            3 => event.name = text(value),
            4 => event.mtu = attribute::u32_at(value, 0)?,
            10 => event.master = attribute::u32_at(value, 0),
            13 => event.queue = attribute::u32_at(value, 0)?,
            27 => event.group = attribute::u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(event)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

/// Whether an address of the host came, changed or went.
pub(super) fn is_host_address(event: &Received) -> bool {
    event.nsid.is_none() && matches!(event.kind, NEW_ADDRESS | DEL_ADDRESS)
}

/// The link that an address message is about.
pub(super) fn address_link(body: &[u8]) -> Option<u32> {
    attribute::u32_at(body, 4)
}

/// The label of an IPv4 address: its device's name, unless it was given another one.
pub(super) fn address_label(body: &[u8]) -> Option<String> {
    const HEADER: usize = 8;
    const LABEL: u16 = 3;
    attribute::each(body.get(HEADER..)?)
        .find(|(kind, _)| *kind == LABEL)
        .map(|(_, value)| text(value))
}

/// A route message of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteEvent {
    pub destination: Option<IpAddr>,
    pub prefix: u8,
    pub protocol: u8,
    pub link: Option<u32>,
}

/// Reads a route message; `None` for other tables and other than unicast routes.
pub(super) fn route(body: &[u8]) -> Option<RouteEvent> {
    const HEADER: usize = 12;
    const MAIN: u8 = 254;
    const UNICAST: u8 = 1;
    let &[_, prefix, _, _, table, protocol, _, kind] = body.first_chunk::<8>()?;
    if table != MAIN || kind != UNICAST {
        return None;
    }
    let mut event = RouteEvent { destination: None, prefix, protocol, link: None };
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
        match kind {
            1 => event.destination = ip(value),
            4 => event.link = attribute::u32_at(value, 0),
            _ => {}
        }
    }
    Some(event)
}

impl RouteEvent {
    /// A default route.
    pub(super) fn is_default(&self) -> bool {
        self.prefix == 0
    }

    /// The one address that it leads to.
    pub(super) fn host(&self) -> Option<IpAddr> {
        let full = |ip: &IpAddr| self.prefix == if ip.is_ipv4() { 32 } else { 128 };
        self.destination.filter(full)
    }
}

/// A neighbour message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NeighbourEvent {
    pub link: u32,
    pub permanent: bool,
    pub ip: IpAddr,
    pub mac: Option<[u8; 6]>,
}

/// Reads a neighbour message.
pub(super) fn neighbour(body: &[u8]) -> Option<NeighbourEvent> {
    const HEADER: usize = 12;
    const PERMANENT: u8 = 0x80;
    let (mut to, mut mac) = (None, None);
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
        match kind {
            1 => to = ip(value),
            2 => mac = value.try_into().ok(),
            _ => {}
        }
    }
    let state: [u8; 2] = body.get(8..10)?.try_into().ok()?;
    let permanent = u16::from_ne_bytes(state) & u16::from(PERMANENT) != 0;
    Some(NeighbourEvent { link: attribute::u32_at(body, 4)?, permanent, ip: to?, mac })
}

/// The link whose forwarding was switched off; -1: every link's.
pub(super) fn forwarding_off(body: &[u8]) -> Option<i32> {
    const HEADER: usize = 4;
    const IFINDEX: u16 = 1;
    const FORWARDING: u16 = 2;
    let attributes = body.get(HEADER..)?;
    let off = attribute::u32_at(attribute::find(attributes, FORWARDING)?, 0)? == 0;
    let index = attribute::u32_at(attribute::find(attributes, IFINDEX)?, 0)?;
    off.then_some(index.cast_signed())
}
