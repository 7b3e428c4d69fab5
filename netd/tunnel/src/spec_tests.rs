#![allow(clippy::unwrap_used)]

use super::*;
use crate::peers::Peers;

fn udp() -> TunnelSpec {
    let message = pb::Tunnel {
        device: "flannel0".into(),
        listen: vec!["192.0.2.7:8285".into()],
        subnets: vec!["10.1.2.0/24".into()],
        kind: Some(pb::tunnel::Kind::Udp(pb::Udp {})),
    };
    TunnelSpec::new(Some(&message)).unwrap()
}

fn peer(endpoint: &str, subnet: &str) -> pb::Peer {
    pb::Peer { endpoint: endpoint.into(), subnets: vec![subnet.into()], ..Default::default() }
}

fn fields(invalid: &Invalid) -> Vec<&str> {
    invalid.violations.iter().map(|violation| violation.field.as_str()).collect()
}

#[test]
fn what_was_checked_is_the_same_when_read_again() {
    let spec = udp();
    assert_eq!(TunnelSpec::new(Some(&spec.message(true))).unwrap(), spec);
    let spec = TunnelSpec { kind: Kind::Wireguard(Secret([7; 32])), ..spec };
    assert_eq!(TunnelSpec::new(Some(&spec.message(true))).unwrap(), spec);
    assert!(!format!("{spec:?}").contains('7'.to_string().repeat(2).as_str()), "{spec:?}");
    let told = spec.message(false);
    assert!(TunnelSpec::new(Some(&told)).is_err(), "the key was told");
}

#[test]
fn every_field_that_is_wrong_is_named() {
    let message = pb::Tunnel {
        device: "a/b".into(),
        listen: vec!["192.0.2.7".into(), "192.0.2.7:1".into(), "192.0.2.7:1".into()],
        subnets: vec!["10.1.2.3/24".into(), "x".into()],
        kind: Some(pb::tunnel::Kind::Wireguard(pb::Wireguard { private_key: vec![0; 32] })),
    };
    let invalid = TunnelSpec::new(Some(&message)).unwrap_err();
    assert_eq!(
        fields(&invalid),
        [
            "tunnel.device",
            "tunnel.listen[0]",
            "tunnel.listen[2]",
            "tunnel.subnets[0]",
            "tunnel.subnets[1]",
            "tunnel.wireguard.private_key"
        ]
    );
    assert_eq!(fields(&TunnelSpec::new(None).unwrap_err()), ["tunnel"]);
}

/// The peers after a request.
fn updated(
    old: &Peers,
    tunnel: &TunnelSpec,
    request: &pb::UpdatePeersRequest,
) -> Result<Peers, Invalid> {
    let mut peers = old.clone();
    peers.apply(&old.changes(tunnel, request)?);
    Ok(peers)
}

#[test]
fn peers_are_set_removed_and_replaced() {
    let spec = udp();
    let mut request = pb::UpdatePeersRequest {
        set: vec![peer("192.0.2.8:8285", "10.1.3.0/24"), peer("192.0.2.9:8285", "10.1.4.0/24")],
        ..Default::default()
    };
    let two = updated(&Peers::default(), &spec, &request).unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(updated(&two, &spec, &request).unwrap(), two);
    request.set = vec![peer("192.0.2.8:8285", "10.1.5.0/24")];
    request.remove = vec!["192.0.2.9:8285".into(), "192.0.2.99:8285".into()];
    assert_eq!(updated(&two, &spec, &request).unwrap().len(), 1);
    request.remove.clear();
    request.replace_all = true;
    assert_eq!(updated(&two, &spec, &request).unwrap().len(), 1);
    // A subnet moves from one peer to another.
    request.set =
        vec![peer("192.0.2.9:8285", "10.1.3.0/24"), peer("192.0.2.8:8285", "10.1.4.0/24")];
    request.replace_all = false;
    let moved = updated(&two, &spec, &request).unwrap();
    assert_ne!(moved, two);
    // The indices follow: what is free by now can be had, and what is not is refused.
    request.set = vec![peer("192.0.2.10:8285", "10.1.3.0/24")];
    assert!(moved.changes(&spec, &request).is_err());
    request.remove = vec!["192.0.2.9:8285".into()];
    let after = updated(&moved, &spec, &request).unwrap();
    assert_eq!(after.len(), 2);
    assert!(after.changes(&spec, &request).unwrap().is_empty());
}

#[test]
fn a_request_changes_what_differs_and_nothing_else() {
    let spec = udp();
    let all = |n: u32| {
        peer(&format!("192.0.2.8:{}", n + 1), &format!("10.{}.{}.0/24", 2 + n / 250, n % 250))
    };
    let request =
        pb::UpdatePeersRequest { set: (0..10_000).map(all).collect(), ..Default::default() };
    let many = updated(&Peers::default(), &spec, &request).unwrap();
    let again = pb::UpdatePeersRequest { replace_all: true, ..request };
    assert!(many.changes(&spec, &again).unwrap().is_empty());
    let one = pb::UpdatePeersRequest {
        set: vec![all(7), peer("192.0.2.8:9", "10.200.0.0/24")],
        remove: vec!["192.0.2.8:1".into()],
        ..Default::default()
    };
    let names: Vec<_> = many.changes(&spec, &one).unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(
        names.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.8:1", "192.0.2.8:9"]
    );
}

#[test]
fn hostile_peers_are_refused_by_name() {
    let spec = udp();
    let refused = |set: Vec<pb::Peer>| {
        let request = pb::UpdatePeersRequest { set, ..Default::default() };
        let invalid = updated(&Peers::default(), &spec, &request).unwrap_err();
        fields(&invalid).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for endpoint in ["", "x", "192.0.2.8", "192.0.2.8:0", "0.0.0.0:1", "224.0.0.1:1", "[::]:1"] {
        assert_eq!(refused(vec![peer(endpoint, "10.1.3.0/24")]), ["set[0].endpoint"], "{endpoint}");
    }
    // No address of the family, the tunnel's own address.
    assert_eq!(refused(vec![peer("[2001:db8::1]:1", "10.1.3.0/24")]), ["set[0].endpoint"]);
    assert_eq!(refused(vec![peer("192.0.2.7:8285", "10.1.3.0/24")]), ["set[0].endpoint"]);
    let same = vec![peer("192.0.2.8:1", "10.1.3.0/24"), peer("192.0.2.9:1", "10.1.3.0/24")];
    assert_eq!(refused(same), ["set[1].subnets"]);
    let twice = vec![peer("192.0.2.8:1", "10.1.3.0/24"), peer("192.0.2.8:1", "10.1.4.0/24")];
    assert_eq!(refused(twice), ["set[1]"]);
    let many = (0..10_000).map(|_| peer("x", "y")).collect();
    assert!(refused(many).len() <= MAX_VIOLATIONS);
    let long = "x".repeat(1 << 20);
    let request = pb::UpdatePeersRequest { remove: vec![long], ..Default::default() };
    assert!(updated(&Peers::default(), &spec, &request).unwrap_err().to_string().len() < 400);
}
