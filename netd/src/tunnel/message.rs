//! Encodes domain values as messages of netd-tunnel's API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use netd_api::tunnel::v1 as pb;

use super::{
    error::{FieldViolation, TunnelError},
    types::{PeerChange, Tunnel, TunnelKind, TunnelPeerName},
};
use netd_domain::{IfName, overlay::TunnelPeer};

pub(super) fn tunnel(tunnel: &Tunnel) -> pb::Tunnel {
    let kind = match &tunnel.kind {
        TunnelKind::Udp => pb::tunnel::Kind::Udp(pb::Udp {}),
        TunnelKind::Wireguard(key) => {
            pb::tunnel::Kind::Wireguard(pb::Wireguard { private_key: key.0.to_vec() })
        }
    };
    pb::Tunnel {
        device: tunnel.device.to_string(),
        listen: tunnel.listen.iter().map(ToString::to_string).collect(),
        subnets: tunnel.subnets.iter().map(|net| net.trunc().to_string()).collect(),
        kind: Some(kind),
    }
}

pub(super) fn change(
    device: &IfName,
    change: &PeerChange,
) -> Result<pb::UpdatePeersRequest, TunnelError> {
    let mut set = Vec::with_capacity(change.set.len());
    for (index, entry) in change.set.iter().enumerate() {
        let (TunnelPeer::Wireguard(own, _) | TunnelPeer::Udp(own, _)) = entry;
        if own != device {
            let rule = format!("the peer is one of {own}, not of {device}");
            let violation = FieldViolation { field: format!("set[{index}]"), rule: rule.clone() };
            return Err(TunnelError::Invalid { message: rule, violations: vec![violation] });
        }
        set.push(peer(entry));
    }
    let name = |name: &TunnelPeerName| match name {
        TunnelPeerName::Endpoint(endpoint) => endpoint.to_string(),
        TunnelPeerName::Key(key) => STANDARD.encode(key),
    };
    Ok(pb::UpdatePeersRequest {
        device: device.to_string(),
        replace_all: change.replace_all,
        set,
        remove: change.remove.iter().map(name).collect(),
    })
}

fn peer(peer: &TunnelPeer) -> pb::Peer {
    match peer {
        TunnelPeer::Udp(_, peer) => pb::Peer {
            subnets: peer.subnets.iter().map(|net| net.trunc().to_string()).collect(),
            endpoint: peer.endpoint.to_string(),
            ..Default::default()
        },
        TunnelPeer::Wireguard(_, peer) => pb::Peer {
            subnets: peer.allowed.iter().map(|net| net.trunc().to_string()).collect(),
            endpoint: peer.endpoint.to_string(),
            public_key: peer.public_key.to_vec(),
            preshared_key: peer.preshared_key.as_ref().map(|k| k.0.to_vec()).unwrap_or_default(),
            keepalive: peer.keepalive.into(),
        },
    }
}
