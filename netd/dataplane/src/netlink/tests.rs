//! Every kind of request, compared with what netd sent before rtnetlink built the
//! messages: `requests.txt` holds those bytes. The order of attributes is free.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use netd_domain::{
    Bandwidth, BridgeWiring, IfName, Mac, Route, Wiring, WiringDriver,
    overlay::{DeviceKind, OverlayDevice, SecretKey, VxlanDevice},
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage, link::InfoKind};

use super::{
    Batch, address, attribute,
    entry::{HeldRoute, KernelHop, OverlayEntry},
    link::{self, LinkId},
    neighbour,
    overlay_device::{self, Setting},
    overlay_entry, route,
};

type Samples = Vec<(&'static str, RouteNetlinkMessage)>;

const LINK: u32 = 7;
const NETLINK_HEADER: usize = 16;

fn name() -> IfName {
    "nd0123456789ab".parse().unwrap()
}

fn mac() -> Mac {
    "02:00:00:00:00:09".parse().unwrap()
}

fn wiring() -> Wiring {
    Wiring {
        network: "default".parse().unwrap(),
        driver: WiringDriver::Routed,
        host_ifname: name(),
        ifname: "eth0".parse().unwrap(),
        mac: mac(),
        host_mac: "02:00:00:00:00:08".parse().unwrap(),
        mtu: 1450,
        addresses: vec![],
        routes: vec![],
        port_mappings: vec![],
        bandwidth: Bandwidth::default(),
        pod_mac: None,
    }
}

fn links() -> Samples {
    let bridge = BridgeWiring { name: "cni0".parse().unwrap(), mac: mac(), addresses: vec![] };
    let (index, named) = (LinkId::Index(LINK), LinkId::Name("eth0"));
    vec![
        ("veth", link::veth(&wiring(), 5, None)),
        ("veth on a bridge", link::veth(&wiring(), 5, Some(3))),
        ("namespace id", link::netns_id(5, 9)),
        ("up", link::set_up(index)),
        ("up by name", link::set_up(named)),
        ("detach", link::detach(index, 0x6e64_0000)),
        ("delete", link::delete(index)),
        ("delete a group", link::delete_group(0x6e64_0000)),
        ("get", link::get(named)),
        ("get all", link::get_all(None)),
        ("get a kind", link::get_all(Some(InfoKind::Veth))),
        ("bridge", link::bridge(&bridge, 1450)),
        ("ifb", link::ifb(&name(), 1450)),
    ]
}

fn addresses_and_routes() -> Samples {
    let mut all = Vec::new();
    let nets = ["10.88.0.5/16", "10.88.0.5/32", "fd00::5/64", "fe80::5/64"];
    for net in nets.map(|net| net.parse().unwrap()) {
        all.push(("address", address::add(LINK, net)));
        all.push(("remove an address", address::remove(LINK, net)));
        all.push(("neighbour", neighbour::add(LINK, net.addr(), mac())));
        all.push(("look a route up", route::look_up(net.addr())));
        all.push(("look an entry up", route::look_up_entry(net.addr(), true)));
    }
    let routes = [
        ("0.0.0.0/0", Some("10.88.0.1")),
        ("10.0.0.0/8", None),
        ("::/0", Some("fe80::1")),
        ("fd00:1::/64", None),
    ];
    for (to, via) in routes {
        let gateway = via.map(|via| via.parse().unwrap());
        let route = Route { destination: to.parse().unwrap(), gateway };
        all.push(("route", route::add(LINK, &route)));
    }
    all.push(("list addresses", address::list(LINK)));
    all.push(("list neighbours", neighbour::list(LINK)));
    all.push(("list routes", route::list(AddressFamily::Inet, Some(LINK))));
    all.push(("list all routes", route::list(AddressFamily::Inet6, None)));
    all
}

fn entries() -> Samples {
    let mut all = Vec::new();
    for ip in ["10.5.2.0", "fd00:5:2::"].map(|ip| ip.parse().unwrap()) {
        let mac = mac().bytes();
        let hops = [
            KernelHop::Nowhere,
            KernelHop::Link(LINK),
            KernelHop::Via { gateway: ip, link: LINK, onlink: false },
            KernelHop::Via { gateway: ip, link: LINK, onlink: true },
        ];
        let routes = hops.into_iter().zip([None, Some(1400), None, Some(1300)]);
        let route = |(hop, mtu)| {
            OverlayEntry::Route(HeldRoute::ours(ipnet::IpNet::new(ip, 24).unwrap(), 9, hop, mtu))
        };
        let mut entries: Vec<_> = routes.map(route).collect();
        entries.push(OverlayEntry::Neighbour { link: LINK, ip, mac });
        entries.push(OverlayEntry::Fdb { link: LINK, mac, remote: ip });
        for entry in &entries {
            all.push(("set an entry", overlay_entry::set(entry)));
            all.push(("remove an entry", overlay_entry::remove(entry)));
        }
    }
    all.push(("list an overlay's routes", overlay_entry::get_routes(AddressFamily::Inet, 110)));
    all.push(("list forwarding entries", overlay_entry::get_fdb(LINK)));
    all
}

fn devices() -> Samples {
    let mut all = Vec::new();
    let underlay: IfName = "eth0".parse().unwrap();
    let mut kinds = vec![
        DeviceKind::Ipip { local: "192.0.2.1".parse().unwrap(), underlay: underlay.clone() },
        DeviceKind::Wireguard { private_key: SecretKey([5; 32]), port: 51820 },
    ];
    for local in ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap()) {
        for (gbp, learning) in [(true, false), (false, true)] {
            let (vni, port, underlay) = (1, 8472, underlay.clone());
            let vxlan = VxlanDevice { vni, port, mac: mac(), local, underlay, gbp, learning };
            kinds.push(DeviceKind::Vxlan(vxlan));
        }
        let source = Setting::Source { local, underlay: 3 };
        all.push(("change the source", overlay_device::change(LINK, source)));
    }
    for kind in kinds {
        let name = "flannel.1".parse().unwrap();
        let device = OverlayDevice { name, mtu: 1430, addresses: vec![], kind };
        all.push(("overlay device", overlay_device::create(&device, 3).unwrap()));
    }
    let settings = [
        Setting::Up,
        Setting::Mtu(1300),
        Setting::Queue(70),
        Setting::Mac(mac().bytes()),
        Setting::Mark,
        Setting::NoAutoconf,
        Setting::Learning(true),
    ];
    let change = |setting| ("change a setting", overlay_device::change(LINK, setting));
    all.extend(settings.map(change));
    let kinds = [InfoKind::Vxlan, InfoKind::IpIp, InfoKind::Tun];
    all.extend(kinds.map(|kind| ("probe", overlay_device::probe(kind))));
    all.push(("get with counters", overlay_device::get_with_counters("flannel.1")));
    all
}

/// One line a request: what it is, its type, its body.
fn text(samples: Samples) -> String {
    let mut out = String::new();
    for (what, message) in samples {
        let mut batch = Batch::new();
        batch.route(message, 0);
        let bytes = batch.bytes();
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        write!(out, "{what}: {kind} ").unwrap();
        bytes[NETLINK_HEADER..].iter().for_each(|byte| write!(out, "{byte:02x}").unwrap());
        out.push('\n');
    }
    out
}

/// A line with its attributes in order, and what is before them.
fn parts(line: &str) -> (String, Vec<(u16, Vec<u8>)>) {
    let (what, hex) = line.rsplit_once(' ').unwrap();
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let bytes: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let kind: u16 = what.rsplit_once(' ').unwrap().1.parse().unwrap();
    // Lengths of ifinfomsg, ifaddrmsg, rtmsg and ndmsg, rtgenmsg.
    let header = match kind {
        16..20 => 16,
        20..24 => 8,
        24..32 => 12,
        _ => 4,
    };
    let attributes = attribute::each(&bytes[header..]);
    let mut all: Vec<_> = attributes.map(|(kind, value)| (kind, value.to_vec())).collect();
    all.sort();
    (format!("{what} {:02x?}", &bytes[..header]), all)
}

#[test]
fn requests_say_what_they_said_before_rtnetlink_built_them() {
    let got = [links(), addresses_and_routes(), entries(), devices()].map(text).concat();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/netlink/requests.txt");
        std::fs::write(path, &got).unwrap();
    }
    let before = include_str!("requests.txt");
    // The file holds numbers as little-endian machines do.
    if cfg!(target_endian = "little") {
        assert_eq!(got.lines().count(), before.lines().count());
        got.lines().zip(before.lines()).for_each(|(got, before)| {
            assert_eq!(parts(got), parts(before));
        });
    }
}
