//! The overlay's devices.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoIpTunnel, InfoKind, InfoVxlan,
        LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Stats64,
    },
};

use super::Received;
use netd_domain::overlay::{DeviceKind, OverlayDevice, VxlanDevice};

/// What the alias of netd's overlay devices begins with (`ip -d link` shows it): known
/// by it, they are removed when they are wanted no more.
pub(crate) const MARK: &str = "netd overlay";

/// A device as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldDevice {
    pub index: u32,
    pub name: String,
    /// `vxlan`, `tun`, ...; empty: hardware.
    pub kind: String,
    pub up: bool,
    pub mtu: u32,
    /// Packets that may wait in it.
    pub queue: u32,
    pub mac: Option<[u8; 6]>,
    /// Netd's mark is on it.
    pub marked: bool,
    /// The kernel makes no IPv6 address by itself (or IPv6 is off).
    pub no_autoconf: bool,
    pub vxlan: Option<HeldVxlan>,
    pub ipip: Option<HeldIpip>,
}

/// A vxlan device's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldVxlan {
    pub vni: u32,
    pub port: u16,
    pub local: Option<IpAddr>,
    /// The underlay's index.
    pub underlay: u32,
    pub gbp: bool,
    pub learning: bool,
    /// Its entries don't matter: routes say where packets go.
    pub metadata: bool,
}

/// An ipip device's own settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldIpip {
    pub local: Option<IpAddr>,
    pub remote: Option<IpAddr>,
    pub underlay: u32,
}

/// The kernel's name for a kind of device.
pub(crate) fn kind_name(kind: &DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Vxlan(_) => "vxlan",
        DeviceKind::Ipip { .. } => "ipip",
        DeviceKind::Wireguard { .. } => "wireguard",
        DeviceKind::Tun => "tun",
    }
}

/// Makes a device, down; `None` for one that netd doesn't make.
pub(crate) fn create(device: &OverlayDevice, underlay: u32) -> Option<RouteNetlinkMessage> {
    let mut message = LinkMessage::default();
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::IfName(device.name.to_string()));
    attributes.push(LinkAttribute::Mtu(device.mtu));
    let info = match &device.kind {
        DeviceKind::Vxlan(vxlan) => {
            attributes.push(LinkAttribute::Address(vxlan.mac.bytes().to_vec()));
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(new_vxlan(vxlan, underlay))]
        }
        DeviceKind::Ipip { local, .. } => {
            let data = vec![
                InfoIpTunnel::Link(underlay),
                InfoIpTunnel::Local(IpAddr::V4(*local)),
                InfoIpTunnel::PMtuDisc(true),
            ];
            vec![LinkInfo::Kind(InfoKind::IpIp), LinkInfo::Data(InfoData::IpTunnel(data))]
        }
        DeviceKind::Wireguard { .. } => vec![LinkInfo::Kind(InfoKind::Wireguard)],
        DeviceKind::Tun => return None,
    };
    attributes.push(LinkAttribute::LinkInfo(info));
    Some(RouteNetlinkMessage::NewLink(message))
}

/// UDP checksums as the kernel has them by default, which is what flannel's nodes send
/// and take: on in both families. A node that sent none over IPv6 would not be heard.
fn new_vxlan(vxlan: &VxlanDevice, underlay: u32) -> InfoData {
    let mut data = vec![
        InfoVxlan::Id(vxlan.vni),
        InfoVxlan::Link(underlay),
        local(vxlan.local),
        InfoVxlan::Learning(vxlan.learning),
        InfoVxlan::Port(vxlan.port),
    ];
    if vxlan.gbp {
        data.push(InfoVxlan::Gbp);
    }
    InfoData::Vxlan(data)
}

fn local(ip: IpAddr) -> InfoVxlan {
    match ip {
        IpAddr::V4(v4) => InfoVxlan::Local(v4),
        IpAddr::V6(v6) => InfoVxlan::Local6(v6),
    }
}

/// What of a device is changed, one thing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    Up,
    Mtu(u32),
    /// Packets that may wait in it.
    Queue(u32),
    Mac([u8; 6]),
    /// Netd's mark.
    Mark,
    /// No IPv6 address of the kernel's own making.
    NoAutoconf,
    /// The source and the underlay of a vxlan device.
    Source {
        local: IpAddr,
        underlay: u32,
    },
    Learning(bool),
}

/// Changes the device `index`.
pub(crate) fn change(index: u32, setting: Setting) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    let vxlan = |data| {
        let (kind, data) = (LinkInfo::Kind(InfoKind::Vxlan), InfoData::Vxlan(data));
        LinkAttribute::LinkInfo(vec![kind, LinkInfo::Data(data)])
    };
    let attribute = match setting {
        Setting::Up => {
            message.header.flags |= LinkFlags::Up;
            message.header.change_mask |= LinkFlags::Up;
            return RouteNetlinkMessage::NewLink(message);
        }
        Setting::Mtu(mtu) => LinkAttribute::Mtu(mtu),
        Setting::Queue(packets) => LinkAttribute::TxQueueLen(packets),
        Setting::Mac(mac) => LinkAttribute::Address(mac.to_vec()),
        Setting::Mark => LinkAttribute::IfAlias(MARK.to_owned()),
        Setting::NoAutoconf => {
            let none = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![none])])
        }
        Setting::Source { local: ip, underlay } => {
            vxlan(vec![InfoVxlan::Link(underlay), local(ip)])
        }
        Setting::Learning(learning) => vxlan(vec![InfoVxlan::Learning(learning)]),
    };
    message.attributes.push(attribute);
    RouteNetlinkMessage::NewLink(message)
}

/// A request to make a device of a kind that the kernel refuses: with "no such type" if
/// it can't make that kind, with a complaint about the settings if it could.
pub(crate) fn probe(kind: InfoKind) -> RouteNetlinkMessage {
    const NO_PROTOCOL: u8 = 99;
    let mut info = vec![LinkInfo::Kind(kind.clone())];
    if kind == InfoKind::IpIp {
        let protocol = InfoIpTunnel::Protocol(NO_PROTOCOL.into());
        info.push(LinkInfo::Data(InfoData::IpTunnel(vec![protocol])));
    }
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::LinkInfo(info));
    RouteNetlinkMessage::NewLink(message)
}

/// Reads an `RTM_NEWLINK`.
pub(crate) fn read(message: &Received) -> Option<HeldDevice> {
    let RouteNetlinkMessage::NewLink(message) = message.route()? else { return None };
    let mut held = HeldDevice {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        no_autoconf: true,
        ..HeldDevice::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => held.name = name,
            LinkAttribute::Mtu(mtu) => held.mtu = mtu,
            LinkAttribute::TxQueueLen(packets) => held.queue = packets,
            LinkAttribute::Address(bytes) => held.mac = bytes.try_into().ok(),
            LinkAttribute::IfAlias(alias) => held.marked = alias.starts_with(MARK),
            LinkAttribute::AfSpecUnspec(parts) => {
                held.no_autoconf = !parts.iter().any(makes_addresses);
            }
            LinkAttribute::LinkInfo(info) => {
                info.into_iter().for_each(|part| read_info(part, &mut held))
            }
            _ => {}
        }
    }
    Some(held)
}

fn makes_addresses(part: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet6(inet6) = part else { return false };
    let by_itself = |a: &AfSpecInet6| matches!(a, AfSpecInet6::AddrGenMode(mode) if *mode != In6AddrGenMode::None);
    inet6.iter().any(by_itself)
}

fn read_info(part: LinkInfo, held: &mut HeldDevice) {
    match part {
        LinkInfo::Kind(kind) => held.kind = kind.to_string(),
        LinkInfo::Data(InfoData::Vxlan(settings)) => held.vxlan = Some(read_vxlan(&settings)),
        LinkInfo::Data(InfoData::IpTunnel(settings)) => held.ipip = Some(read_ipip(&settings)),
        _ => {}
    }
}

fn read_vxlan(settings: &[InfoVxlan]) -> HeldVxlan {
    let mut held = HeldVxlan::default();
    for setting in settings {
        match setting {
            InfoVxlan::Id(vni) => held.vni = *vni,
            InfoVxlan::Port(port) => held.port = *port,
            InfoVxlan::Local(ip) => held.local = Some((*ip).into()),
            InfoVxlan::Local6(ip) => held.local = Some((*ip).into()),
            InfoVxlan::Link(index) => held.underlay = *index,
            InfoVxlan::Gbp => held.gbp = true,
            InfoVxlan::Learning(on) => held.learning = *on,
            InfoVxlan::CollectMetadata(on) => held.metadata = *on,
            _ => {}
        }
    }
    held
}

fn read_ipip(settings: &[InfoIpTunnel]) -> HeldIpip {
    let mut held = HeldIpip::default();
    for setting in settings {
        match setting {
            InfoIpTunnel::Local(ip) => held.local = Some(*ip),
            InfoIpTunnel::Remote(ip) => held.remote = Some(*ip).filter(|ip| !ip.is_unspecified()),
            InfoIpTunnel::Link(index) => held.underlay = *index,
            _ => {}
        }
    }
    held
}

/// Asks for a link with its counters.
pub(crate) fn get_with_counters(name: &str) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    RouteNetlinkMessage::GetLink(message)
}

/// A link's counters, if the message has them.
pub(crate) fn read_counters(message: &Received) -> Option<Stats64> {
    let RouteNetlinkMessage::NewLink(message) = message.route()? else { return None };
    message.attributes.into_iter().find_map(|a| match a {
        LinkAttribute::Stats64(stats) => Some(stats),
        _ => None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::netlink::Batch;

    /// As the kernel would send it back.
    fn said(message: RouteNetlinkMessage) -> HeldDevice {
        let mut batch = Batch::new();
        batch.route(message, 0);
        let all = crate::netlink::cut(batch.bytes(), None);
        read(&all[0]).unwrap()
    }

    #[test]
    fn devices_are_said_as_they_are_read() {
        let vxlan = VxlanDevice {
            vni: 1,
            port: 8472,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            local: "2001:db8::1".parse().unwrap(),
            underlay: "eth0".parse().unwrap(),
            gbp: true,
            learning: false,
        };
        let mut device = OverlayDevice {
            name: "flannel.1".parse().unwrap(),
            mtu: 1430,
            addresses: vec![],
            kind: DeviceKind::Vxlan(vxlan),
        };
        let held = said(create(&device, 7).unwrap());
        assert_eq!((held.name.as_str(), held.kind.as_str()), ("flannel.1", "vxlan"));
        assert_eq!((held.mtu, held.mac), (1430, Some([2, 0, 0, 0, 0, 1])));
        let local = Some("2001:db8::1".parse().unwrap());
        let expected =
            HeldVxlan { vni: 1, port: 8472, local, underlay: 7, gbp: true, ..HeldVxlan::default() };
        assert_eq!(held.vxlan, Some(expected));
        let local = "192.0.2.1".parse().unwrap();
        device.kind = DeviceKind::Ipip { local, underlay: "eth0".parse().unwrap() };
        let held = said(create(&device, 7).unwrap());
        let expected = HeldIpip { local: Some(local.into()), remote: None, underlay: 7 };
        assert_eq!((held.kind.as_str(), held.ipip), ("ipip", Some(expected)));
        device.kind = DeviceKind::Tun;
        assert!(create(&device, 7).is_none(), "another process makes it");
        assert!(said(change(3, Setting::Mark)).marked);
        assert_eq!(said(change(3, Setting::Mtu(1300))).mtu, 1300);
        assert_eq!(said(change(3, Setting::Queue(70))).queue, 70);
    }
}
