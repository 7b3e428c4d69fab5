//! WireGuard devices and their peers, by generic netlink (uapi/linux/wireguard.h).

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_generic::{
    GenlFamily, GenlHeader, GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr as AllowedAttr,
    WireguardAttribute as Attr, WireguardCmd, WireguardMessage, WireguardPeer as PeerMessage,
    WireguardPeerAttribute as PeerAttr, WireguardPeerFlags,
};

use super::{Received, attribute};
use netd_domain::{IfName, overlay::WireguardPeer};

/// `GENL_ID_CTRL`: the family that knows the others.
pub(crate) const CONTROLLER: u16 = 16;
/// Length of `genlmsghdr`.
const HEADER: usize = 4;
/// The kernel's value for "no key".
const NO_KEY: [u8; 32] = [0; 32];

/// A device as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldTunnel {
    pub private_key: Option<[u8; 32]>,
    pub port: u16,
    pub peers: HashMap<[u8; 32], HeldPeer>,
}

/// A peer as the kernel has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HeldPeer {
    pub endpoint: Option<SocketAddr>,
    pub allowed: BTreeSet<IpNet>,
    pub preshared_key: Option<[u8; 32]>,
    /// Seconds.
    pub keepalive: u16,
    /// Seconds since 1970; 0: never.
    pub last_handshake: i64,
}

/// A request's body.
fn body<F: GenlFamily + Emitable + std::fmt::Debug>(payload: F) -> Vec<u8> {
    let message = GenlMessage::from_payload(payload);
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}

fn request(cmd: WireguardCmd, name: &IfName, more: Vec<Attr>) -> Vec<u8> {
    let mut attributes = vec![Attr::IfName(name.to_string())];
    attributes.extend(more);
    body(WireguardMessage { cmd, attributes })
}

/// Asks the controller for WireGuard's family number; loads the module, if there is one.
pub(crate) fn get_family() -> Vec<u8> {
    let name = GenlCtrlAttrs::FamilyName(WireguardMessage::family_name().to_owned());
    body(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![name] })
}

/// Reads the number from the controller's answer, and only that: netlink-packet-generic
/// panics when it decodes a policy that is cut off.
pub(crate) fn read_family(message: &Received) -> Option<u16> {
    const FAMILY_ID: u16 = 1;
    let attributes = message.body().get(HEADER..)?;
    let id = attribute::find(attributes, FAMILY_ID)?;
    Some(u16::from_ne_bytes(*id.first_chunk()?))
}

/// Asks for a device and its peers (as a dump).
pub(crate) fn get_device(name: &IfName) -> Vec<u8> {
    request(WireguardCmd::GetDevice, name, Vec::new())
}

/// Sets a device's key and port.
pub(crate) fn set_device(name: &IfName, private_key: [u8; 32], port: u16) -> Vec<u8> {
    let settings = vec![Attr::PrivateKey(private_key), Attr::ListenPort(port)];
    request(WireguardCmd::SetDevice, name, settings)
}

/// Sets everything of a peer; with `keep_endpoint` all but its endpoint.
pub(crate) fn set_peer(name: &IfName, peer: &WireguardPeer, keep_endpoint: bool) -> Vec<u8> {
    let preshared = peer.preshared_key.as_ref().map_or(NO_KEY, |key| key.0);
    let mut attributes = vec![
        PeerAttr::PublicKey(peer.public_key),
        PeerAttr::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        PeerAttr::PresharedKey(preshared),
        PeerAttr::PersistentKeepalive(peer.keepalive),
        PeerAttr::AllowedIps(peer.allowed.iter().map(allowed).collect()),
    ];
    if !keep_endpoint {
        attributes.push(PeerAttr::Endpoint(peer.endpoint));
    }
    let peers = Attr::Peers(vec![PeerMessage(attributes)]);
    request(WireguardCmd::SetDevice, name, vec![peers])
}

fn allowed(net: &IpNet) -> WireguardAllowedIp {
    let family = match net {
        IpNet::V4(_) => WireguardAddressFamily::Ipv4,
        IpNet::V6(_) => WireguardAddressFamily::Ipv6,
    };
    WireguardAllowedIp(vec![
        AllowedAttr::Family(family),
        AllowedAttr::IpAddr(net.network()),
        AllowedAttr::Cidr(net.prefix_len()),
    ])
}

/// Removes a peer; a missing one is fine.
pub(crate) fn remove_peer(name: &IfName, public_key: [u8; 32]) -> Vec<u8> {
    let gone = vec![
        PeerAttr::PublicKey(public_key),
        PeerAttr::Flags(WireguardPeerFlags::RemoveMe | WireguardPeerFlags::UpdateOnly),
    ];
    let peers = Attr::Peers(vec![PeerMessage(gone)]);
    request(WireguardCmd::SetDevice, name, vec![peers])
}

/// Reads the answer to [`get_device`]. A peer with many subnets comes in several parts.
pub(crate) fn read_device(messages: &[Received]) -> HeldTunnel {
    let mut held = HeldTunnel::default();
    for message in messages {
        let Some(part): Option<WireguardMessage> = read(message) else { continue };
        for attribute in part.attributes {
            match attribute {
                Attr::PrivateKey(key) => held.private_key = Some(key).filter(|key| *key != NO_KEY),
                Attr::ListenPort(port) => held.port = port,
                Attr::Peers(peers) => peers.iter().for_each(|peer| read_peer(peer, &mut held)),
                _ => {}
            }
        }
    }
    held
}

fn read_peer(message: &PeerMessage, held: &mut HeldTunnel) {
    let key = message.iter().find_map(|attribute| match attribute {
        PeerAttr::PublicKey(key) => Some(*key),
        _ => None,
    });
    let Some(key) = key else { return };
    let peer = held.peers.entry(key).or_default();
    for attribute in message.iter() {
        match attribute {
            PeerAttr::Endpoint(endpoint) => peer.endpoint = Some(*endpoint),
            PeerAttr::PresharedKey(key) => {
                peer.preshared_key = Some(*key).filter(|key| *key != NO_KEY);
            }
            PeerAttr::PersistentKeepalive(seconds) => peer.keepalive = *seconds,
            PeerAttr::LastHandshake(time) => peer.last_handshake = time.seconds,
            PeerAttr::AllowedIps(all) => peer.allowed.extend(all.iter().filter_map(read_allowed)),
            _ => {}
        }
    }
}

fn read_allowed(message: &WireguardAllowedIp) -> Option<IpNet> {
    let (mut ip, mut prefix): (Option<IpAddr>, _) = (None, None);
    for attribute in message.iter() {
        match attribute {
            AllowedAttr::IpAddr(address) => ip = Some(*address),
            AllowedAttr::Cidr(length) => prefix = Some(*length),
            _ => {}
        }
    }
    IpNet::new(ip?, prefix?).ok()
}

fn read<F>(message: &Received) -> Option<F>
where
    F: ParseableParametrized<[u8], GenlHeader>,
{
    let (header, payload) = message.body().split_at_checked(HEADER)?;
    let &[cmd, version, _, _] = header else { return None };
    F::parse_with_param(payload, GenlHeader { cmd, version }).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use netd_domain::overlay::SecretKey;

    /// As the kernel would send it back: what it reads it also says.
    fn back(body: &[u8]) -> Received {
        let bytes = [&[0; 16], body].concat();
        Received { kind: 0x20, port: 0, nsid: None, bytes }
    }

    fn name() -> IfName {
        "flannel-wg".parse().unwrap()
    }

    fn peer() -> WireguardPeer {
        WireguardPeer {
            public_key: [7; 32],
            endpoint: "[2001:db8::2]:51820".parse().unwrap(),
            allowed: ["10.5.2.0/24", "fd00:5:2::/64"].map(|net| net.parse().unwrap()).into(),
            preshared_key: Some(SecretKey([9; 32])),
            keepalive: 25,
        }
    }

    #[test]
    fn a_peer_is_said_as_it_is_read() {
        let mut expected = HeldPeer {
            endpoint: Some(peer().endpoint),
            allowed: peer().allowed,
            preshared_key: Some([9; 32]),
            keepalive: 25,
            last_handshake: 0,
        };
        let held = read_device(&[back(&set_peer(&name(), &peer(), false))]);
        assert_eq!(held.peers, [([7; 32], expected.clone())].into());
        let bare = WireguardPeer { preshared_key: None, ..peer() };
        let held = read_device(&[back(&set_peer(&name(), &bare, true))]);
        (expected.endpoint, expected.preshared_key) = (None, None);
        assert_eq!(held.peers, [([7; 32], expected)].into());
    }

    #[test]
    fn a_peer_in_several_parts_is_put_together() {
        let first = WireguardPeer { allowed: ["10.5.2.0/24".parse().unwrap()].into(), ..peer() };
        let second = WireguardPeer { allowed: ["fd00:5:2::/64".parse().unwrap()].into(), ..peer() };
        let parts = [first, second].map(|peer| back(&set_peer(&name(), &peer, false)));
        assert_eq!(read_device(&parts).peers[&[7; 32]].allowed, peer().allowed);
    }

    #[test]
    fn a_devices_settings_are_said_as_they_are_read() {
        let held = read_device(&[back(&set_device(&name(), [5; 32], 51820))]);
        assert_eq!((held.private_key, held.port), (Some([5; 32]), 51820));
    }

    /// Byte for byte as `wg set flannel-wg peer <key> remove` says it.
    #[test]
    fn a_removal_is_said_as_the_kernel_reads_it() {
        let body = remove_peer(&name(), [7; 32]);
        let mut expected = vec![1, 1, 0, 0];
        expected.extend_from_slice(&[15, 0, 2, 0]);
        expected.extend_from_slice(b"flannel-wg\0\0");
        // Peers, peer, key, flags: remove, but don't make it for that.
        expected.extend_from_slice(&[52, 0, 8, 0x80, 48, 0, 0, 0x80, 36, 0, 1, 0]);
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[8, 0, 3, 0, 5, 0, 0, 0]);
        if cfg!(target_endian = "little") {
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn a_policy_that_is_cut_off_hides_no_number() {
        let mut answer = back(&body(GenlCtrl {
            cmd: GenlCtrlCmd::NewFamily,
            nlas: vec![GenlCtrlAttrs::FamilyId(29)],
        }));
        // CTRL_ATTR_POLICY of 3 bytes.
        answer.bytes.extend_from_slice(&[7, 0, 8, 0, 1, 2, 3, 0]);
        assert_eq!(read_family(&answer), Some(29));
    }

    #[test]
    fn the_controllers_answer_is_read_and_junk_is_not() {
        let id = GenlCtrlAttrs::FamilyId(29);
        let answer = body(GenlCtrl { cmd: GenlCtrlCmd::NewFamily, nlas: vec![id] });
        assert_eq!(read_family(&back(&answer)), Some(29));
        assert_eq!(read_family(&back(&get_family())), None);
        for length in 0..40 {
            let junk = back(&vec![0xff; length]);
            assert_eq!(read_family(&junk), None, "{length}");
            assert_eq!(read_device(&[junk]), HeldTunnel::default(), "{length}");
        }
    }
}
