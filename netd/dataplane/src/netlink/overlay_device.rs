//! The overlay's devices.

use std::net::IpAddr;

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoData, InfoIpTunnel, InfoKind,
        InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, Stats64,
    },
};
use rtnetlink::{LinkBridge, LinkIpIp, LinkMessageBuilder, LinkUnspec, LinkVxlan, LinkWireguard};

use super::{Received, missing};
use netd_domain::overlay::{DeviceKind, OverlayDevice, VxlanDevice};

/// How the alias of netd's overlay devices begins (`ip -d link` shows it). netd removes
/// a device with this mark once the overlay does not need it.
pub(crate) const MARK: &str = "netd overlay";

/// A device as the kernel has it.
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
    /// Its alias begins with [`MARK`].
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
    /// External mode: routes say where packets go, and forwarding entries have no effect.
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
    let name = device.name.as_str();
    let message = match &device.kind {
        DeviceKind::Vxlan(vxlan) => new_vxlan(name, vxlan, underlay).mtu(device.mtu).build(),
        DeviceKind::Ipip { local, .. } => {
            let builder = LinkIpIp::new(name).mtu(device.mtu);
            builder.dev(underlay).local(*local).pmtudisc(true).build()
        }
        DeviceKind::Wireguard { .. } => LinkWireguard::new(name).mtu(device.mtu).build(),
        DeviceKind::Tun => return None,
    };
    Some(RouteNetlinkMessage::NewLink(message))
}

/// UDP checksums are left as the kernel has them by default, which is what flannel's nodes
/// send and accept: on in both families. A node that sent none over IPv6 would not be heard.
fn new_vxlan(name: &str, vxlan: &VxlanDevice, underlay: u32) -> LinkMessageBuilder<LinkVxlan> {
    let builder = LinkVxlan::new(name, vxlan.vni).address(vxlan.mac.bytes().to_vec());
    let builder = sent_from(builder.dev(underlay), vxlan.local);
    let builder = builder.learning(vxlan.learning).port(vxlan.port);
    if vxlan.gbp { builder.gbp() } else { builder }
}

fn sent_from(builder: LinkMessageBuilder<LinkVxlan>, ip: IpAddr) -> LinkMessageBuilder<LinkVxlan> {
    match ip {
        IpAddr::V4(v4) => builder.local(v4),
        IpAddr::V6(v6) => builder.local6(v6),
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
    /// What a bridge only bridges passes iptables and nftables as if it were routed.
    PassIptables,
}

/// Changes the device `index`.
pub(crate) fn change(index: u32, setting: Setting) -> RouteNetlinkMessage {
    let link = || LinkUnspec::new_with_index(index);
    let vxlan =
        || LinkMessageBuilder::<LinkVxlan>::new_with_info_kind(InfoKind::Vxlan).index(index);
    let message = match setting {
        Setting::Up => link().up().build(),
        Setting::Mtu(mtu) => link().mtu(mtu).build(),
        Setting::Queue(packets) => link().txqueuelen(packets).build(),
        Setting::Mac(mac) => link().address(mac.to_vec()).build(),
        Setting::Mark => link().alias(MARK).build(),
        Setting::NoAutoconf => {
            link().append_extra_attribute(missing::family_settings(true, false)).build()
        }
        Setting::Source { local, underlay } => sent_from(vxlan().dev(underlay), local).build(),
        Setting::Learning(learning) => vxlan().learning(learning).build(),
        Setting::PassIptables => {
            let both = [InfoBridge::NfCallIpTables(true), InfoBridge::NfCallIp6Tables(true)];
            let bridge = LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge);
            bridge.index(index).set_info_data(InfoData::Bridge(both.to_vec())).build()
        }
    };
    RouteNetlinkMessage::NewLink(message)
}

/// A request to make a device of a kind that the kernel refuses: with "no such type" if
/// it can't make that kind, with a complaint about the settings if it could.
pub(crate) fn probe(kind: InfoKind) -> RouteNetlinkMessage {
    const NO_PROTOCOL: u8 = 99;
    let message = if kind == InfoKind::IpIp {
        let builder = LinkMessageBuilder::<LinkIpIp>::new_with_info_kind(kind);
        builder.protocol(NO_PROTOCOL.into()).build()
    } else {
        LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).build()
    };
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
    RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name).build())
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
