use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::{
    Family, Identity, Lease, Local, Subnets, Underlay,
    flannel::{config, key, value},
};
use netd_domain::{
    IfName,
    overlay::{
        DeviceKind, Hop, OverlayDevice, OverlayObject, OverlayRoute, SecretKey, TunnelKind,
        TunnelPeer, UdpPeer, VxlanDevice, WireguardPeer,
    },
};

fn config(backend: &str, families: &[Family]) -> crate::ClusterConfig {
    let (v4, v6) = (families.contains(&Family::V4), families.contains(&Family::V6));
    let json = format!(
        r#"{{"EnableIPv4":{v4},"EnableIPv6":{v6},"Network":"10.5.0.0/16",
            "IPv6Network":"fd00:5::/48","Backend":{backend}}}"#
    );
    config::parse(json.as_bytes()).unwrap().config
}

const V4: &[Family] = &[Family::V4];
const V6: &[Family] = &[Family::V6];
const DUAL: &[Family] = &Family::ALL;

/// Node 3, on 192.0.2.0/24 and 2001:db8::/64.
pub(crate) fn local(backend: &str, families: &[Family]) -> Local {
    let cluster = config(backend, families);
    let subnets = Subnets {
        v4: cluster.v4.map(|_| "10.5.52.0/24".parse().unwrap()),
        v6: cluster.v6.map(|_| "fd00:5:0:7::/64".parse().unwrap()),
    };
    let ips = ["192.0.2.3/24", "2001:db8::3/64", "fe80::3/64"];
    Local {
        cluster,
        underlay: Underlay {
            device: "eth0".parse().unwrap(),
            mtu: 1500,
            addresses: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        },
        public_v4: Some("192.0.2.3".parse().unwrap()),
        public_v6: Some("2001:db8::3".parse().unwrap()),
        subnets: vec![subnets],
        identity: Identity {
            vtep_v4: "2e:a4:5b:00:00:03".parse().unwrap(),
            vtep_v6: "2e:a4:5b:00:06:03".parse().unwrap(),
            wireguard: SecretKey([7; 32]),
        },
        kernel_wireguard: true,
        blackhole: false,
        extension_data: None,
    }
}

pub(crate) fn lease(name: &str, value: &str) -> Lease {
    let attrs = value::parse(value.as_bytes()).unwrap();
    Lease { subnets: key::parse(name).unwrap(), attrs, reservation: false }
}

fn peer(local: &Local, lease: &Lease) -> Result<PeerPlan, PeerProblem> {
    backend(&local.cluster.backend).peer(local, lease)
}

fn plan(local: &Local) -> Result<LocalPlan, PeerProblem> {
    backend(&local.cluster.backend).local(local)
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn route(to: &str, hop: Hop) -> OverlayObject {
    OverlayObject::Route(OverlayRoute { destination: to.parse().unwrap(), hop, mtu: None })
}

fn via(to: &str, gateway: &str, device: &str, onlink: bool) -> OverlayObject {
    route(to, Hop::Via { gateway: ip(gateway), device: name(device), onlink })
}

const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const DIRECT: &str = r#"{"Type":"vxlan","DirectRouting":true}"#;
const PEER_DUAL: &str = r#"{"PublicIP":"192.0.2.8","PublicIPv6":"2001:db8::8","BackendType":"vxlan",
    "BackendData":{"VNI":1,"VtepMAC":"aa:00:00:00:00:08"},
    "BackendV6Data":{"VNI":1,"VtepMAC":"aa:00:00:00:06:08"}}"#;
const DUAL_NAME: &str = "10.5.8.0-24&fd00:5:0:8::-64";

/// What a node announces is what flannel writes, byte by byte.
#[test]
fn announcements_are_flannels() {
    let golden = |name: &str| {
        let path = format!("{}/src/flannel/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    for (backend_json, families, file) in [
        (VXLAN, V4, "vxlan.json"),
        (VXLAN, DUAL, "vxlan-dual.json"),
        (VXLAN, V6, "vxlan-v6.json"),
        (r#"{"Type":"host-gw"}"#, V4, "host-gw.json"),
        (r#"{"Type":"host-gw"}"#, DUAL, "host-gw-dual.json"),
        (r#"{"Type":"udp"}"#, V4, "udp.json"),
        (r#"{"Type":"alloc"}"#, V4, "alloc.json"),
        (r#"{"Type":"ipip"}"#, V4, "ipip.json"),
        (r#"{"Type":"extension"}"#, V4, "extension.json"),
        (r#"{"Type":"wireguard"}"#, DUAL, "wireguard-dual.json"),
        (r#"{"Type":"wireguard","Mode":"ipv4"}"#, DUAL, "wireguard-ipv4.json"),
    ] {
        let mut local = local(backend_json, families);
        local.extension_data = Some("a <b> & \"c\"".to_owned());
        let announced = backend(&local.cluster.backend).announce(&local);
        assert_eq!(value::format(&announced), golden(file), "{file}");
        // And is read back as what it was.
        assert_eq!(value::parse(golden(file).as_bytes()).unwrap(), announced, "{file}");
    }
}

#[test]
fn vxlan_makes_one_device_a_family_of_pods() {
    let made = plan(&local(VXLAN, DUAL)).unwrap();
    let kind = |mac: &str, local: &str| {
        DeviceKind::Vxlan(VxlanDevice {
            vni: 1,
            port: 8472,
            mac: mac.parse().unwrap(),
            local: ip(local),
            underlay: name("eth0"),
            gbp: false,
            learning: false,
        })
    };
    let device = |n: &str, mtu, address: &str, kind| OverlayDevice {
        name: name(n),
        mtu,
        addresses: vec![address.parse().unwrap()],
        kind,
    };
    let v4 = kind("2e:a4:5b:00:00:03", "192.0.2.3");
    let v6 = kind("2e:a4:5b:00:06:03", "2001:db8::3");
    let devices = vec![
        device("flannel.1", 1450, "10.5.52.0/32", v4),
        device("flannel-v6.1", 1430, "fd00:5:0:7::/128", v6),
    ];
    assert_eq!(made, LocalPlan { devices, mtu: 1430, ..LocalPlan::default() });
}

#[test]
fn vxlan_reaches_a_peer_of_both_families() {
    let local = local(VXLAN, DUAL);
    let made = peer(&local, &lease(DUAL_NAME, PEER_DUAL)).unwrap();
    let mut wanted = vec![];
    for (device, mac, subnet, gateway, remote) in [
        ("flannel.1", "aa:00:00:00:00:08", "10.5.8.0/24", "10.5.8.0", "192.0.2.8"),
        ("flannel-v6.1", "aa:00:00:00:06:08", "fd00:5:0:8::/64", "fd00:5:0:8::", "2001:db8::8"),
    ] {
        let (mac, remote) = (mac.parse().unwrap(), ip(remote));
        wanted.push(OverlayObject::Neighbour { device: name(device), ip: ip(gateway), mac });
        wanted.push(OverlayObject::Fdb { device: name(device), mac, remote });
        wanted.push(via(subnet, gateway, device, true));
    }
    assert_eq!(made.objects, wanted);
}

#[test]
fn direct_routing_is_for_peers_on_the_same_link() {
    let local = local(DIRECT, DUAL);
    let near = peer(&local, &lease(DUAL_NAME, PEER_DUAL)).unwrap();
    let wanted = vec![
        via("10.5.8.0/24", "192.0.2.8", "eth0", false),
        via("fd00:5:0:8::/64", "2001:db8::8", "eth0", false),
    ];
    assert_eq!(near.objects, wanted);
    let far = PEER_DUAL.replace("192.0.2.8", "198.51.100.8");
    let far = peer(&local, &lease(DUAL_NAME, &far)).unwrap();
    assert_eq!(far.objects.len(), 4);
    assert_eq!(far.objects[2], via("10.5.8.0/24", "10.5.8.0", "flannel.1", true));
}

#[test]
fn ipv4_pods_over_an_ipv6_underlay() {
    let mut local = local(VXLAN, V4);
    local.public_v4 = None;
    let made = plan(&local).unwrap();
    assert_eq!(made.mtu, 1430);
    let DeviceKind::Vxlan(device) = &made.devices[0].kind else { panic!("{made:?}") };
    assert_eq!(device.local, ip("2001:db8::3"));
    let made = peer(&local, &lease(DUAL_NAME, PEER_DUAL)).unwrap();
    assert!(
        matches!(&made.objects[1], OverlayObject::Fdb { remote, .. } if *remote == ip("2001:db8::8"))
    );
    let announced = backend(&local.cluster.backend).announce(&local);
    assert_eq!((announced.public_v4, announced.public_v6), (None, local.public_v6));
}

#[test]
fn an_mtu_that_leaves_too_little_is_named() {
    let mut small = local(VXLAN, V6);
    small.underlay.mtu = 1300;
    assert_eq!(
        plan(&small).unwrap_err().to_string(),
        "MTU: 1300 bytes of the underlay leave 1230 beside 70 of encapsulation; IPv6 needs 1280"
    );
    let mut lonely = local(VXLAN, V4);
    (lonely.public_v4, lonely.public_v6) = (None, None);
    assert!(plan(&lonely).unwrap_err().to_string().starts_with("PublicIP: this node has no"));
    let configured = local(r#"{"Type":"vxlan","MTU":9000}"#, V4);
    assert_eq!(plan(&configured).unwrap().mtu, 8950);
}

#[test]
fn a_lease_that_is_wrong_says_which_field() {
    let local = local(VXLAN, DUAL);
    for (from, to, wanted) in [
        ("vxlan", "host-gw", "BackendType: \"host-gw\" is not the cluster's backend, vxlan"),
        (
            "\"VNI\":1,\"VtepMAC\":\"aa:00:00:00:06",
            "\"VNI\":2,\"VtepMAC\":\"aa:00:00:00:06",
            "BackendV6Data.VNI: 2 is not the cluster's VNI, 1",
        ),
        (
            "aa:00:00:00:00:08",
            "2e:a4:5b:00:00:03",
            "BackendData.VtepMAC: 2e:a4:5b:00:00:03 is this node's own",
        ),
        ("aa:00:00:00:00:08", "01:00:5e:00:00:08", "BackendData.VtepMAC: \"01:00:5e:00:00:08\""),
        ("\"BackendData\"", "\"Other\"", "BackendData: missing"),
        ("192.0.2.8", "0.0.0.0", "PublicIP: missing; this node reaches its peers over IPv4"),
        ("192.0.2.8", "127.0.0.1", "PublicIP: 127.0.0.1 is a loopback address"),
        ("192.0.2.8", "255.255.255.255", "PublicIP: 255.255.255.255 is nobody's address"),
        ("192.0.2.8", "192.0.2.3", "PublicIP: 192.0.2.3 is this node's own address"),
        ("2001:db8::8", "ff02::1", "PublicIPv6: ff02::1 is a multicast address"),
        ("2001:db8::8", "fe80::3", "PublicIPv6: fe80::3 is a link-local address"),
    ] {
        let value = PEER_DUAL.replace(from, to);
        let problem = peer(&local, &lease(DUAL_NAME, &value)).unwrap_err().to_string();
        assert!(problem.starts_with(wanted), "{problem}");
    }
}

#[test]
fn a_reservation_that_nobody_took_is_no_problem() {
    let mut reserved = lease("10.5.9.0-24", r#"{"PublicIP":"192.0.2.9"}"#);
    assert!(peer(&local(VXLAN, V4), &reserved).is_err());
    reserved.reservation = true;
    assert_eq!(peer(&local(VXLAN, V4), &reserved).unwrap(), PeerPlan::default());
}

#[test]
fn host_gw_routes_through_nodes_on_the_link() {
    let mut local = local(r#"{"Type":"host-gw"}"#, DUAL);
    let value = r#"{"PublicIP":"192.0.2.8","PublicIPv6":"2001:db8::8","BackendType":"host-gw"}"#;
    let made = peer(&local, &lease(DUAL_NAME, value)).unwrap();
    let wanted = vec![
        via("10.5.8.0/24", "192.0.2.8", "eth0", false),
        via("fd00:5:0:8::/64", "2001:db8::8", "eth0", false),
    ];
    assert_eq!(made.objects, wanted);
    assert_eq!(plan(&local).unwrap().mtu, 1500);

    let far = lease("10.5.9.0-24", &value.replace("192.0.2.8", "198.51.100.8"));
    let problem = peer(&local, &far).unwrap_err();
    assert!(problem.to_string().starts_with("PublicIP: 198.51.100.8 is not on the link of eth0"));
    // A cloud's lone address says nothing about the link.
    local.underlay.addresses[0] = "192.0.2.3/32".parse().unwrap();
    let made = peer(&local, &far).unwrap();
    assert_eq!(made.objects, vec![via("10.5.9.0/24", "198.51.100.8", "eth0", true)]);

    local.public_v4 = Some("203.0.113.1".parse().unwrap());
    assert!(plan(&local).unwrap_err().to_string().contains("behind NAT"));
}

#[test]
fn udp_has_one_tunnel_for_both_families() {
    let mut node = local(r#"{"Type":"udp"}"#, DUAL);
    let made = plan(&node).unwrap();
    assert_eq!((made.mtu, made.devices[0].name.as_str()), (1472, "flannel0"));
    let addresses: Vec<_> = made.devices[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.5.52.0/32", "fd00:5:0:7::/128"]);
    let whole = |net: &str| route(net, Hop::Device(name("flannel0")));
    assert_eq!(made.objects, vec![whole("10.5.0.0/16"), whole("fd00:5::/48")]);
    let listen = vec!["192.0.2.3:8285".parse().unwrap()];
    assert_eq!(made.tunnels[0].kind, TunnelKind::Udp { listen });

    let value = r#"{"PublicIP":"192.0.2.8","PublicIPv6":"2001:db8::8"}"#;
    let udp = |endpoint: &str| {
        let subnets = ["10.5.8.0/24", "fd00:5:0:8::/64"].map(|s| s.parse().unwrap());
        let endpoint: SocketAddr = endpoint.parse().unwrap();
        TunnelPeer::Udp(name("flannel0"), UdpPeer { endpoint, subnets: subnets.into() })
    };
    let made = peer(&node, &lease(DUAL_NAME, value)).unwrap();
    assert_eq!(made.tunnels, vec![udp("192.0.2.8:8285")]);
    node.public_v4 = None;
    let made = peer(&node, &lease(DUAL_NAME, value)).unwrap();
    assert_eq!(made.tunnels, vec![udp("[2001:db8::8]:8285")]);
    assert_eq!(plan(&node).unwrap().mtu, 1452);
    let other = value.replace('}', r#","BackendType":"vxlan"}"#);
    assert!(peer(&node, &lease(DUAL_NAME, &other)).is_err());
}

const PEER_WG: &str = r#"{"PublicIP":"192.0.2.8","PublicIPv6":"2001:db8::8",
    "BackendType":"wireguard",
    "BackendData":{"PublicKey":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=","Port":4000},
    "BackendV6Data":{"PublicKey":"CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg="}}"#;

fn wg(device: &str, endpoint: &str, allowed: &[&str]) -> TunnelPeer {
    let peer = WireguardPeer {
        public_key: [8; 32],
        endpoint: endpoint.parse().unwrap(),
        allowed: allowed.iter().map(|s| s.parse().unwrap()).collect(),
        preshared_key: None,
        keepalive: 0,
    };
    TunnelPeer::Wireguard(name(device), peer)
}

#[test]
fn wireguard_of_one_tunnel_a_family() {
    let node = local(r#"{"Type":"wireguard"}"#, DUAL);
    let made = plan(&node).unwrap();
    let devices: Vec<_> = made.devices.iter().map(|d| (d.name.as_str(), d.mtu)).collect();
    assert_eq!(devices, [("flannel-wg", 1420), ("flannel-wg-v6", 1420)]);
    let port = |d: &OverlayDevice| match d.kind {
        DeviceKind::Wireguard { port, .. } => port,
        _ => 0,
    };
    assert_eq!((port(&made.devices[0]), port(&made.devices[1])), (51820, 51821));
    assert!(made.tunnels.is_empty());
    let whole = |net: &str, device: &str| route(net, Hop::Device(name(device)));
    let wanted = vec![whole("10.5.0.0/16", "flannel-wg"), whole("fd00:5::/48", "flannel-wg-v6")];
    assert_eq!(made.objects, wanted);

    let made = peer(&node, &lease(DUAL_NAME, PEER_WG)).unwrap();
    let v4 = wg("flannel-wg", "192.0.2.8:4000", &["10.5.8.0/24"]);
    // The port is the configuration's where the lease has none.
    let v6 = wg("flannel-wg-v6", "[2001:db8::8]:51821", &["fd00:5:0:8::/64"]);
    assert_eq!(made.tunnels, vec![v4, v6]);
}

#[test]
fn wireguard_of_one_tunnel_for_both() {
    let both = &["10.5.8.0/24", "fd00:5:0:8::/64"];
    let mode = |mode: &str| local(&format!(r#"{{"Type":"wireguard","Mode":"{mode}"}}"#), DUAL);
    for (how, endpoint) in [
        ("ipv4", "192.0.2.8:4000"),
        ("ipv6", "[2001:db8::8]:4000"),
        // 192.0.2.8 is not among the private ranges.
        ("auto", "192.0.2.8:4000"),
    ] {
        let made = peer(&mode(how), &lease(DUAL_NAME, PEER_WG)).unwrap();
        assert_eq!(made.tunnels, vec![wg("flannel-wg", endpoint, both)], "{how}");
    }
    let private = lease(DUAL_NAME, &PEER_WG.replace("192.0.2.8", "10.99.0.8"));
    let made = peer(&mode("auto"), &private).unwrap();
    assert_eq!(made.tunnels, vec![wg("flannel-wg", "[2001:db8::8]:4000", both)]);
    let made = plan(&mode("auto")).unwrap();
    assert_eq!((made.devices.len(), made.objects.len()), (1, 2));
}

#[test]
fn userspace_wireguard_is_a_tunnel_of_the_tunnel_process() {
    let psk = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";
    let json = format!(r#"{{"Type":"wireguard","PSK":"{psk}","PersistentKeepaliveInterval":25}}"#);
    let mut node = local(&json, V4);
    node.kernel_wireguard = false;
    let made = plan(&node).unwrap();
    assert_eq!(made.devices[0].kind, DeviceKind::Tun);
    let wanted = TunnelKind::Wireguard {
        private_key: SecretKey([7; 32]),
        listen: vec!["0.0.0.0:51820".parse().unwrap(), "[::]:51820".parse().unwrap()],
        preshared_key: Some(SecretKey([9; 32])),
        keepalive: 25,
    };
    assert_eq!(made.tunnels[0].kind, wanted);
    let made = peer(&node, &lease("10.5.8.0-24", PEER_WG)).unwrap();
    let TunnelPeer::Wireguard(_, peer) = &made.tunnels[0] else { panic!("{made:?}") };
    assert_eq!((peer.keepalive, &peer.preshared_key), (25, &Some(SecretKey([9; 32]))));
}

#[test]
fn wireguard_nodes_may_share_an_address_but_no_key_and_port() {
    let node = local(r#"{"Type":"wireguard"}"#, V4);
    let value = PEER_WG.replace("192.0.2.8", "192.0.2.3");
    let made = peer(&node, &lease("10.5.8.0-24", &value)).unwrap();
    assert_eq!(made.tunnels, vec![wg("flannel-wg", "192.0.2.3:4000", &["10.5.8.0/24"])]);
    let value = value.replace("4000", "51820");
    let problem = peer(&node, &lease("10.5.8.0-24", &value)).unwrap_err();
    assert!(problem.to_string().contains("this node's own address"), "{problem}");

    let announced = backend(&node.cluster.backend).announce(&node);
    let mut own = lease("10.5.8.0-24", PEER_WG);
    own.attrs.data_v4 = announced.data_v4;
    let problem = peer(&node, &own).unwrap_err();
    assert!(problem.to_string().contains("this node's own key"), "{problem}");
    own.attrs.data_v4 = Some(serde_json::json!({"PublicKey": "AAAA"}).into());
    let problem = peer(&node, &own).unwrap_err().to_string();
    assert_eq!(problem, "BackendData.PublicKey: \"AAAA\" is not a key (32 bytes in base64)");
}

#[test]
fn ipip_is_for_ipv4() {
    let ipip = r#"{"Type":"ipip","DirectRouting":true}"#;
    let node = local(ipip, V4);
    let made = plan(&node).unwrap();
    assert_eq!((made.devices[0].name.as_str(), made.mtu), ("flannel.ipip", 1480));
    let value = r#"{"PublicIP":"192.0.2.8","PublicIPv6":null,"BackendType":"ipip"}"#;
    let near = peer(&node, &lease("10.5.8.0-24", value)).unwrap();
    assert_eq!(near.objects, vec![via("10.5.8.0/24", "192.0.2.8", "eth0", false)]);
    let far = value.replace("192.0.2.8", "198.51.100.8");
    let far = peer(&node, &lease("10.5.8.0-24", &far)).unwrap();
    assert_eq!(far.objects, vec![via("10.5.8.0/24", "198.51.100.8", "flannel.ipip", true)]);
    assert!(plan(&local(ipip, DUAL)).unwrap_err().to_string().contains("IPv4 only"));
}

#[test]
fn extension_tells_commands_what_flannel_tells_them() {
    let json = r#"{"Type":"extension","PreStartupCommand":"make-key","PostStartupCommand":"up $SUBNET",
        "SubnetAddCommand":"route add ${SUBNET} via $PUBLIC_IP $HOME$ $5 $NOWHERE"}"#;
    let node = local(json, V4);
    let pre = pre_startup(&node.cluster.backend).unwrap();
    assert_eq!((pre.line.as_str(), pre.stdin.as_str()), ("make-key", "\n"));
    let post = plan(&node).unwrap().post_startup.unwrap();
    let wanted = vec![
        ("NETWORK", "10.5.0.0/16"),
        ("SUBNET", "10.5.52.0/24"),
        ("PUBLIC_IP", "192.0.2.3"),
        ("PUBLIC_IPV6", "2001:db8::3"),
    ];
    let env: Vec<_> = post.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(env, wanted);

    let value = r#"{"PublicIP":"192.0.2.8","PublicIPv6":null,"BackendType":"extension",
        "BackendData":"$(rm) two words"}"#;
    let made = peer(&node, &lease("10.5.8.0-24", value)).unwrap().commands.unwrap();
    assert_eq!(made.remove, None);
    let add = made.add.unwrap();
    assert_eq!(add.stdin, "$(rm) two words\n");
    let argv = add.argv(|name| (name == "HOME").then(|| "/a b".to_owned()));
    let wanted = ["route", "add", "10.5.8.0/24", "via", "192.0.2.8", "/a b$", "", ""];
    assert_eq!(argv, wanted);
}

#[test]
fn blackholes_are_for_own_subnets() {
    for backend in [VXLAN, r#"{"Type":"host-gw"}"#, r#"{"Type":"alloc"}"#] {
        let mut node = local(backend, V4);
        node.subnets.push(Subnets { v4: Some("10.5.53.0/24".parse().unwrap()), v6: None });
        assert!(plan(&node).unwrap().objects.is_empty());
        node.blackhole = true;
        let wanted =
            vec![route("10.5.52.0/24", Hop::Blackhole), route("10.5.53.0/24", Hop::Blackhole)];
        assert_eq!(plan(&node).unwrap().objects, wanted);
    }
}
