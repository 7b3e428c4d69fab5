//! Compares a WireGuard device's peers with the wanted ones.
//! Pure.

use std::collections::{BTreeMap, HashMap};

use ipnet::IpNet;

use crate::netlink::wireguard::{HeldPeer, HeldTunnel};
use netd_domain::overlay::WireguardPeer;

/// For so long after a handshake the endpoint is taken to be right, seconds. Peers renew it every
/// two minutes; after three the session is void (WireGuard's REJECT_AFTER_TIME).
const FRESH: i64 = 180;

/// Steps for one device's peers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PeerPlan {
    /// Peers to set; `true`: all but the endpoint, which the kernel learned from packets.
    pub set: Vec<(WireguardPeer, bool)>,
    /// By public key.
    pub remove: Vec<[u8; 32]>,
    /// Subnets that an earlier peer (by key) has already, and who claims them too.
    pub refused: Vec<([u8; 32], IpNet)>,
}

/// The steps; `now`: seconds since 1970.
///
/// The kernel follows a peer that moved, by its packets. An endpoint that differs from the
/// wanted one is left while handshakes come: setting it would cut the peer off.
pub(super) fn plan_peers<'a>(
    wanted: impl Iterator<Item = &'a WireguardPeer>,
    held: &HeldTunnel,
    now: i64,
) -> PeerPlan {
    let mut plan = PeerPlan::default();
    let wanted: BTreeMap<_, _> = wanted.map(|peer| (peer.public_key, peer)).collect();
    let mut owners: HashMap<IpNet, [u8; 32]> = HashMap::new();
    for (key, peer) in &wanted {
        let mut peer = (*peer).clone();
        peer.allowed = peer.allowed.iter().map(IpNet::trunc).collect();
        peer.allowed.retain(|net| {
            let first = *owners.entry(*net).or_insert(*key) == *key;
            if !first {
                plan.refused.push((*key, *net));
            }
            first
        });
        match held.peers.get(key) {
            None => plan.set.push((peer, false)),
            Some(held) => {
                let there = held.endpoint == Some(peer.endpoint);
                let heard = held.endpoint.is_some() && now - held.last_handshake < FRESH;
                if !same(&peer, held) || !(there || heard) {
                    plan.set.push((peer, there || heard));
                }
            }
        }
    }
    plan.remove.extend(held.peers.keys().filter(|key| !wanted.contains_key(*key)));
    plan
}

fn same(peer: &WireguardPeer, held: &HeldPeer) -> bool {
    peer.allowed == held.allowed
        && peer.preshared_key.as_ref().map(|key| key.0).filter(|key| *key != [0; 32])
            == held.preshared_key
        && peer.keepalive == held.keepalive
}

/// A private key as the kernel keeps it (RFC 7748, section 5).
pub(super) fn clamped(mut key: [u8; 32]) -> [u8; 32] {
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    key
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn peer(key: u8, allowed: &[&str]) -> WireguardPeer {
        WireguardPeer {
            public_key: [key; 32],
            endpoint: format!("192.0.2.{key}:51820").parse().unwrap(),
            allowed: allowed.iter().map(|net| net.parse().unwrap()).collect(),
            preshared_key: None,
            keepalive: 0,
        }
    }

    fn held(peer: &WireguardPeer) -> HeldTunnel {
        let held = HeldPeer {
            endpoint: Some(peer.endpoint),
            allowed: peer.allowed.clone(),
            ..HeldPeer::default()
        };
        HeldTunnel { peers: [(peer.public_key, held)].into(), ..HeldTunnel::default() }
    }

    #[test]
    fn what_is_right_is_left_and_what_is_missing_or_too_much_is_not() {
        let (two, three) = (peer(2, &["10.5.2.0/24"]), peer(3, &["10.5.3.0/24"]));
        let there = held(&two);
        assert_eq!(plan_peers([&two].into_iter(), &there, NOW), PeerPlan::default());
        let plan = plan_peers([&three].into_iter(), &there, NOW);
        let expected =
            PeerPlan { set: vec![(three, false)], remove: vec![[2; 32]], refused: vec![] };
        assert_eq!(plan, expected);
    }

    #[test]
    fn an_endpoint_is_left_where_the_peer_was_heard() {
        let two = peer(2, &["10.5.2.0/24"]);
        let mut there = held(&two);
        let roamed = there.peers.get_mut(&[2; 32]).unwrap();
        roamed.endpoint = Some("198.51.100.1:4".parse().unwrap());
        roamed.last_handshake = NOW - 100;
        assert_eq!(plan_peers([&two].into_iter(), &there, NOW), PeerPlan::default());
        let late = plan_peers([&two].into_iter(), &there, NOW + 100);
        assert_eq!(late.set, [(two.clone(), false)]);
        // Something else differs meanwhile.
        let other = WireguardPeer { keepalive: 25, ..two };
        let plan = plan_peers([&other].into_iter(), &there, NOW);
        assert_eq!(plan.set, [(other, true)]);
    }

    #[test]
    fn a_subnet_belongs_to_one_peer_always_the_same() {
        let (two, three) = (peer(2, &["10.5.2.0/24"]), peer(3, &["10.5.2.0/24", "10.5.3.0/24"]));
        for order in [[&two, &three], [&three, &two]] {
            let plan = plan_peers(order.into_iter(), &HeldTunnel::default(), NOW);
            assert_eq!(plan.refused, [([3; 32], "10.5.2.0/24".parse().unwrap())]);
            assert_eq!(plan.set[1].0.allowed, ["10.5.3.0/24".parse().unwrap()].into());
        }
    }

    #[test]
    fn keys_are_compared_as_the_kernel_keeps_them() {
        let key = clamped([0xff; 32]);
        assert_eq!((key[0], key[31]), (0xf8, 0x7f));
        assert_eq!(clamped(key), key);
        assert_eq!(clamped([0; 32])[31], 0x40);
    }
}
