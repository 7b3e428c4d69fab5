//! What the kernel is asked about the overlay.

use netd_dataplane::{DataplaneError, Drift, UnderlayChoice};
use netd_domain::overlay::{
    DeviceKind, Hop, OverlayDevice, OverlayObject, OverlayRoute, OverlayState, SecretKey,
};

use crate::nodes::Node;

#[tokio::test]
async fn the_kernels_answer_for_a_destination_is_told() {
    let node = Node::one();
    let mut state = node.state(&[2]);
    let destination = "10.7.0.0/24".parse().unwrap();
    let gateway = "192.0.2.9".parse().unwrap();
    let hop = Hop::Via { gateway, device: "eth0".parse().unwrap(), onlink: false };
    state.objects.insert(OverlayObject::Route(OverlayRoute { destination, hop, mtu: Some(1400) }));
    let nowhere = OverlayRoute {
        destination: "10.5.1.0/24".parse().unwrap(),
        hop: Hop::Blackhole,
        mtu: None,
    };
    state.objects.insert(OverlayObject::Route(nowhere));
    node.settle(&state).await;
    let ask = |ip: &str| node.dataplane.route_to(ip.parse().unwrap());
    let route = ask("10.5.2.7").await.unwrap().unwrap();
    assert_eq!((route.device.as_str(), route.mtu, route.ours), ("flannel.1", 1450, true));
    assert_eq!(route.destination, "10.5.2.0/24".parse().unwrap());
    assert_eq!(route.gateway, Some("10.5.2.0".parse().unwrap()));
    assert_eq!(route.source, Some("10.5.1.0".parse().unwrap()));
    let route = ask("fd00:5:2::7").await.unwrap().unwrap();
    assert_eq!((route.device.as_str(), route.protocol), ("flannel.1", 110));
    let route = ask("10.7.0.1").await.unwrap().unwrap();
    assert_eq!((route.device.as_str(), route.gateway, route.mtu), ("eth0", Some(gateway), 1400));
    assert_eq!(ask("10.5.1.7").await.unwrap(), None, "a blackhole");
    assert_eq!(ask("198.51.100.1").await.unwrap(), None);
    let route = ask("192.0.2.77").await.unwrap().unwrap();
    assert_eq!((route.device.as_str(), route.gateway, route.ours), ("eth0", None, false));
}

#[tokio::test]
async fn what_the_kernel_lacks_is_told_and_asking_leaves_nothing_behind() {
    let node = Node::one();
    let before = node.host.ip("-o link");
    let ipip_was_loaded = std::path::Path::new("/sys/module/ipip").exists();
    let able = node.dataplane.overlay_capabilities().await.unwrap();
    assert_eq!(node.host.ip("-o link"), before);
    assert!(able.vxlan && able.tun, "{able:?}");
    let loaded = std::path::Path::new("/sys/module/ipip").exists();
    assert_eq!(loaded, ipip_was_loaded, "asking put a tunl0 into every namespace");
    let underlay = "eth0".parse().unwrap();
    let kinds = [
        (None, "ipip", DeviceKind::Ipip { local: "192.0.2.1".parse().unwrap(), underlay }),
        (
            Some(able.wireguard),
            "wireguard",
            DeviceKind::Wireguard { private_key: SecretKey([0x40; 32]), port: 51820 },
        ),
    ];
    for (able, name, kind) in kinds {
        // The module itself makes one without addresses.
        let to = if name == "ipip" { "remote 192.0.2.9" } else { "" };
        let by_hand = node.host.run("ip", &format!("link add hand type {name} {to}"));
        let _ = node.host.run("ip", "link delete hand");
        let has = by_hand.is_ok();
        assert!(able.is_none_or(|able| able == has), "{name}: {by_hand:?}");
        let device = OverlayDevice { name: "flannel-x".parse().unwrap(), kind, ..node.device() };
        let state = OverlayState { devices: vec![device], ..OverlayState::default() };
        let report = node.sync(&state).await;
        let said = report.refused.iter().any(
            |(_, e)| matches!(e, DataplaneError::Unsupported { what, .. } if what.contains(name)),
        );
        assert_eq!(said, !has, "{name}: {:?}", report.refused);
    }
}

#[tokio::test]
async fn the_underlay_is_found_and_watched() {
    let mut node = Node::one();
    let of = |choice| node.dataplane.underlay_of(choice);
    let none = of(UnderlayChoice::DefaultRoute).await.unwrap_err().to_string();
    assert!(none.contains("no default route"), "{none}");
    let eth0 = of(UnderlayChoice::Name("eth0".parse().unwrap())).await.unwrap();
    let addresses = ["192.0.2.1/24", "2001:db8::1/64"].map(|net| net.parse().unwrap());
    assert_eq!((eth0.mtu, &eth0.addresses[..]), (1500, &addresses[..]));
    let choices = [
        UnderlayChoice::Address("192.0.2.1".parse().unwrap()),
        UnderlayChoice::Address("2001:db8::1".parse().unwrap()),
        UnderlayChoice::Reaches("192.0.2.77".parse().unwrap()),
        UnderlayChoice::Reaches("2001:db8::77".parse().unwrap()),
    ];
    for choice in choices {
        assert_eq!(of(choice).await.unwrap(), eth0);
    }
    of(UnderlayChoice::Reaches("203.0.113.1".parse().unwrap())).await.unwrap_err();
    of(UnderlayChoice::Address("203.0.113.1".parse().unwrap())).await.unwrap_err();
    node.host.ip("route add default via 192.0.2.254");
    assert_eq!(of(UnderlayChoice::DefaultRoute).await.unwrap(), eth0);
    for damage in [
        "link set eth0 mtu 1400",
        "addr add 192.0.2.50/24 dev eth0",
        "addr add 2001:db8::50/64 dev eth0 nodad",
        "addr del 192.0.2.50/24 dev eth0",
        "link set eth0 down",
        "link set eth0 up",
        "route add default via 192.0.2.253",
    ] {
        node.quiet().await;
        node.host.ip(damage);
        assert!(node.hears(&Drift::Overlay).await, "{damage}");
        node.dataplane.underlay_of(UnderlayChoice::Name("eth0".parse().unwrap())).await.unwrap();
    }
}
