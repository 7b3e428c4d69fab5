//! In what a WireGuard device differs from what is wanted, in words. WireGuard sends no events,
//! so whoever wants to know has to look.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    peers::{PeerPlan, clamped},
    worker::Overlay,
};
use crate::{DataplaneError, netlink::wireguard::HeldTunnel};
use netd_domain::{
    IfName,
    overlay::{DeviceKind, OverlayState, SecretKey},
};

impl Overlay {
    /// In what the devices' keys, ports and peers differ; of peers only those that are wanted,
    /// if `wanted` is partial. A device that is not there is another's business.
    pub(super) fn compare_wireguard(
        &mut self,
        wanted: &OverlayState,
    ) -> Result<Vec<String>, DataplaneError> {
        let mut differences = Vec::new();
        for device in &wanted.devices {
            let DeviceKind::Wireguard { private_key, port } = &device.kind else { continue };
            let peers = wanted.wireguard_of(&device.name);
            let found = self.plan_tunnel(&device.name, peers, wanted.partial)?;
            let Some((held, plan)) = found else { continue };
            differences.extend(device_difference(&device.name, &held, private_key, *port));
            differences.extend(peer_differences(&device.name, &held, &plan));
        }
        Ok(differences)
    }
}

/// In what a device's own settings differ; no key is shown.
pub(super) fn device_difference(
    name: &IfName,
    held: &HeldTunnel,
    key: &SecretKey,
    port: u16,
) -> Option<String> {
    if held.private_key != Some(clamped(key.0)) {
        return Some(format!("{name} has another private key than this node's"));
    }
    let listens = held.port;
    (listens != port).then(|| format!("{name} listens on port {listens}, not {port}"))
}

fn peer_differences(name: &IfName, held: &HeldTunnel, plan: &PeerPlan) -> Vec<String> {
    let shown = |key: &[u8; 32]| STANDARD.encode(key);
    let set = plan.set.iter().map(|(peer, _)| {
        let key = shown(&peer.public_key);
        match held.peers.contains_key(&peer.public_key) {
            true => format!("{name}: the peer {key} has other settings than its lease says"),
            false => format!("{name}: the peer {key} is missing"),
        }
    });
    let removed = plan.remove.iter();
    let removed = removed.map(|key| format!("{name}: the peer {} is no node's", shown(key)));
    set.chain(removed).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{netlink::wireguard::HeldPeer, overlay::peers::plan_peers};
    use netd_domain::overlay::WireguardPeer;

    const KEY: SecretKey = SecretKey([0x40; 32]);

    fn peer() -> WireguardPeer {
        WireguardPeer {
            public_key: [1; 32],
            endpoint: "192.0.2.1:51820".parse().unwrap(),
            allowed: ["10.5.1.0/24".parse().unwrap()].into(),
            preshared_key: None,
            keepalive: 0,
        }
    }

    fn held() -> HeldTunnel {
        let peer = peer();
        let held = HeldPeer {
            endpoint: Some(peer.endpoint),
            allowed: peer.allowed,
            ..HeldPeer::default()
        };
        let peers = [(peer.public_key, held)].into();
        HeldTunnel { private_key: Some(clamped(KEY.0)), port: 51820, peers }
    }

    fn said(change: impl FnOnce(&mut HeldTunnel)) -> Vec<String> {
        let (name, mut held) = ("flannel-wg".parse().unwrap(), held());
        change(&mut held);
        let wanted = peer();
        let plan = plan_peers([&wanted].into_iter(), &held, 1_800_000_000);
        let mut all: Vec<_> = device_difference(&name, &held, &KEY, 51820).into_iter().collect();
        all.extend(peer_differences(&name, &held, &plan));
        all
    }

    #[test]
    fn every_change_by_hand_is_said_and_no_secret() {
        assert_eq!(said(|_| {}), [""; 0]);
        let one = |all: Vec<String>, part: &str| {
            assert!(all.len() == 1 && all[0].contains(part), "{part}: {all:?}");
        };
        one(said(|held| held.port = 7), "port 7, not 51820");
        one(said(|held| held.private_key = Some([0x48; 32])), "another private key");
        one(said(|held| held.private_key = None), "another private key");
        one(said(|held| held.peers.clear()), "is missing");
        let stranger =
            |held: &mut HeldTunnel| drop(held.peers.insert([9; 32], HeldPeer::default()));
        one(said(stranger), "is no node's");
        let own = |held: &mut HeldTunnel, change: fn(&mut HeldPeer)| {
            held.peers.values_mut().for_each(change);
        };
        one(said(|held| own(held, |peer| peer.allowed.clear())), "other settings");
        one(said(|held| own(held, |peer| peer.endpoint = None)), "other settings");
        one(said(|held| own(held, |peer| peer.preshared_key = Some([5; 32]))), "other settings");
        one(said(|held| own(held, |peer| peer.keepalive = 9)), "other settings");
    }
}
