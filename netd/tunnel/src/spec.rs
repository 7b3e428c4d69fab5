//! What a caller asks for, checked: wire messages become values that can't be wrong.

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr, SocketAddrV6},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use netd_api::tunnel::v1 as pb;

/// Listen addresses of a tunnel, at most.
const MAX_LISTEN: usize = 16;
/// Violations that are told of one request, at most.
const MAX_VIOLATIONS: usize = 32;

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its path: `tunnel.listen[1]`.
    pub field: String,
    /// What is wrong with its value.
    pub rule: String,
}

/// A request that was refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Each field.
    pub violations: Vec<Violation>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.violations.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.rule)?;
        }
        Ok(())
    }
}

impl Invalid {
    pub(crate) fn add(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { field: field.into(), rule: rule.into() });
        }
    }

    pub(crate) fn checked<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}

/// A hostile value can be megabytes of junk.
fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(64).flat_map(char::escape_default).collect();
    if text.len() < value.len() {
        text.push_str("...");
    }
    format!("\"{text}\"")
}

/// An X25519 private key or a preshared key; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub [u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Which backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One packet a datagram.
    Udp,
    /// WireGuard with this private key.
    Wireguard(Secret),
}

/// A tunnel without its peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSpec {
    /// The tun device.
    pub device: String,
    /// Where it listens; at least one address.
    pub listen: Vec<SocketAddr>,
    /// This node's own subnets.
    pub local: Vec<IpNet>,
    /// Which backend.
    pub kind: Kind,
}

/// What a peer is known by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PeerName {
    /// Of the udp backend.
    Endpoint(SocketAddr),
    /// Of WireGuard: its public key.
    Key([u8; 32]),
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => endpoint.fmt(f),
            Self::Key(key) => f.write_str(&STANDARD.encode(key)),
        }
    }
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// What goes there, and the only sources it may send from.
    pub subnets: BTreeSet<IpNet>,
    /// Where it is.
    pub endpoint: SocketAddr,
    /// WireGuard's preshared key.
    pub preshared_key: Option<Secret>,
    /// WireGuard's keepalive, seconds; 0: none.
    pub keepalive: u16,
}

impl TunnelSpec {
    /// Checks a message.
    ///
    /// # Errors
    /// Every field that is wrong.
    pub fn new(message: Option<&pb::Tunnel>) -> Result<Self, Invalid> {
        let mut invalid = Invalid::default();
        let Some(message) = message else {
            invalid.add("tunnel", "is missing");
            return Err(invalid);
        };
        check_device("tunnel.device", &message.device, &mut invalid);
        let listen = listen(&message.listen, &mut invalid);
        let local = nets("tunnel.subnets", &message.subnets, &mut invalid);
        let kind = kind(message.kind.as_ref(), &mut invalid);
        invalid.checked(kind).map(|kind| Self {
            device: message.device.clone(),
            listen,
            local: local.into_iter().collect(),
            kind,
        })
    }

    /// The message that it came from; `secrets`: with the private key.
    pub fn message(&self, secrets: bool) -> pb::Tunnel {
        let kind = match &self.kind {
            Kind::Udp => pb::tunnel::Kind::Udp(pb::Udp {}),
            Kind::Wireguard(key) => pb::tunnel::Kind::Wireguard(pb::Wireguard {
                private_key: if secrets { key.0.to_vec() } else { vec![] },
            }),
        };
        pb::Tunnel {
            device: self.device.clone(),
            listen: self.listen.iter().map(SocketAddr::to_string).collect(),
            subnets: self.local.iter().map(IpNet::to_string).collect(),
            kind: Some(kind),
        }
    }
}

/// Checks a device's name: what the kernel takes, in printable ASCII.
pub(crate) fn check_device(field: &str, name: &str, invalid: &mut Invalid) {
    let fine = |b: u8| b.is_ascii_graphic() && !b"/:%\"\\*".contains(&b);
    let reserved = [".", "..", "lo", "all", "default"].contains(&name);
    if name.is_empty() || name.len() > 15 || reserved || !name.bytes().all(fine) {
        invalid.add(
            field,
            format!("{} is no device name: 1 to 15 printable ASCII characters", shown(name)),
        );
    }
}

/// Checks a request's device alone.
///
/// # Errors
/// Says what is wrong with it.
pub fn device(name: &str) -> Result<(), Invalid> {
    let mut invalid = Invalid::default();
    check_device("device", name, &mut invalid);
    invalid.checked(Some(()))
}

fn listen(values: &[String], invalid: &mut Invalid) -> Vec<SocketAddr> {
    let mut found = vec![];
    for (index, value) in values.iter().enumerate().take(MAX_LISTEN) {
        let field = format!("tunnel.listen[{index}]");
        match address(value) {
            Some(address) if found.contains(&address) => {
                invalid.add(field, format!("{} is given twice", shown(value)));
            }
            Some(address) => found.push(address),
            None => invalid.add(field, address_rule(value)),
        }
    }
    if values.is_empty() || values.len() > MAX_LISTEN {
        invalid.add("tunnel.listen", format!("1 to {MAX_LISTEN} addresses are needed"));
    }
    found
}

/// An address with a port; the flow label of an IPv6 one means nothing here.
fn address(value: &str) -> Option<SocketAddr> {
    let address: SocketAddr = value.parse().ok()?;
    let plain = match address {
        SocketAddr::V4(_) => address,
        SocketAddr::V6(a) => SocketAddrV6::new(*a.ip(), a.port(), 0, a.scope_id()).into(),
    };
    (address.port() != 0 && !address.ip().is_multicast()).then_some(plain)
}

fn address_rule(value: &str) -> String {
    format!(
        "{} is no address with a port, as \"192.0.2.7:8285\" or \"[2001:db8::7]:8285\"",
        shown(value)
    )
}

fn endpoint(value: &str) -> Option<SocketAddr> {
    let usable = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_unspecified() && !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unspecified() && ip.to_ipv4_mapped().is_none(),
    };
    address(value).filter(|address| usable(address.ip()))
}

fn nets(field: &str, values: &[String], invalid: &mut Invalid) -> BTreeSet<IpNet> {
    let mut found = BTreeSet::new();
    for (index, value) in values.iter().enumerate() {
        match value.parse::<IpNet>() {
            Ok(net) if net.trunc() == net => {
                found.insert(net);
            }
            Ok(net) => invalid.add(
                format!("{field}[{index}]"),
                format!("{} has bits beyond its prefix; write {}", shown(value), net.trunc()),
            ),
            Err(_) => invalid.add(
                format!("{field}[{index}]"),
                format!("{} is no subnet, as \"10.1.2.0/24\"", shown(value)),
            ),
        }
    }
    found
}

fn kind(message: Option<&pb::tunnel::Kind>, invalid: &mut Invalid) -> Option<Kind> {
    match message {
        Some(pb::tunnel::Kind::Udp(_)) => Some(Kind::Udp),
        Some(pb::tunnel::Kind::Wireguard(wireguard)) => {
            let key = key("tunnel.wireguard.private_key", &wireguard.private_key, invalid)?;
            Some(Kind::Wireguard(Secret(key)))
        }
        None => {
            invalid.add("tunnel.kind", "is missing: udp or wireguard");
            None
        }
    }
}

fn key(field: &str, bytes: &[u8], invalid: &mut Invalid) -> Option<[u8; 32]> {
    let key = <[u8; 32]>::try_from(bytes).ok().filter(|key| key.iter().any(|byte| *byte != 0));
    if key.is_none() {
        let rule = format!("has {} bytes; 32 are needed, not all of them zero", bytes.len());
        invalid.add(field, rule);
    }
    key
}

fn peer(
    field: &str,
    message: &pb::Peer,
    kind: &Kind,
    invalid: &mut Invalid,
) -> Option<(PeerName, PeerSpec)> {
    let subnets = nets(&format!("{field}.subnets"), &message.subnets, invalid);
    let endpoint = endpoint(&message.endpoint);
    if endpoint.is_none() {
        invalid.add(format!("{field}.endpoint"), address_rule(&message.endpoint));
    }
    let keepalive = u16::try_from(message.keepalive).ok();
    if keepalive.is_none() {
        let rule = format!("{} is more than 65535 seconds", message.keepalive);
        invalid.add(format!("{field}.keepalive"), rule);
    }
    let preshared_key = match message.preshared_key.as_slice() {
        [] => Some(None),
        bytes => key(&format!("{field}.preshared_key"), bytes, invalid).map(|k| Some(Secret(k))),
    };
    let name = match kind {
        Kind::Udp => PeerName::Endpoint(endpoint?),
        Kind::Wireguard(_) => {
            PeerName::Key(key(&format!("{field}.public_key"), &message.public_key, invalid)?)
        }
    };
    let spec = PeerSpec {
        subnets,
        endpoint: endpoint?,
        preshared_key: preshared_key?,
        keepalive: keepalive?,
    };
    Some((name, spec))
}

/// The message that a peer came from.
pub(crate) fn peer_message(name: &PeerName, peer: &PeerSpec) -> pb::Peer {
    pb::Peer {
        subnets: peer.subnets.iter().map(IpNet::to_string).collect(),
        endpoint: peer.endpoint.to_string(),
        public_key: match name {
            PeerName::Endpoint(_) => vec![],
            PeerName::Key(key) => key.to_vec(),
        },
        preshared_key: peer.preshared_key.as_ref().map(|k| k.0.to_vec()).unwrap_or_default(),
        keepalive: peer.keepalive.into(),
    }
}

fn name(field: &str, value: &str, kind: &Kind, invalid: &mut Invalid) -> Option<PeerName> {
    let parsed = match kind {
        Kind::Udp => address(value).map(PeerName::Endpoint),
        Kind::Wireguard(_) => STANDARD
            .decode(value)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(PeerName::Key),
    };
    if parsed.is_none() {
        let what = match kind {
            Kind::Udp => address_rule(value),
            Kind::Wireguard(_) => format!("{} is no public key in base64", shown(value)),
        };
        invalid.add(field, what);
    }
    parsed
}

/// The peers that a request removes.
pub(crate) fn removed(
    request: &pb::UpdatePeersRequest,
    kind: &Kind,
    invalid: &mut Invalid,
) -> Vec<PeerName> {
    let names = request.remove.iter().enumerate();
    names.filter_map(|(i, value)| name(&format!("remove[{i}]"), value, kind, invalid)).collect()
}

/// The peers that a request sets, each with its number in the request.
pub(crate) fn set(
    request: &pb::UpdatePeersRequest,
    tunnel: &TunnelSpec,
    invalid: &mut Invalid,
) -> Vec<(usize, PeerName, PeerSpec)> {
    let messages = request.set.iter().enumerate();
    let checked = messages.filter_map(|(index, message)| {
        let field = format!("set[{index}]");
        let (name, spec) = peer(&field, message, &tunnel.kind, invalid)?;
        check_reach(&field, &spec, tunnel, invalid);
        Some((index, name, spec))
    });
    checked.collect()
}

fn check_reach(field: &str, peer: &PeerSpec, tunnel: &TunnelSpec, invalid: &mut Invalid) {
    let endpoint = peer.endpoint;
    if !tunnel.listen.iter().any(|listen| listen.is_ipv4() == endpoint.is_ipv4()) {
        let rule = format!("{endpoint}: the tunnel listens on no address of this family");
        invalid.add(format!("{field}.endpoint"), rule);
    }
    if tunnel.listen.contains(&endpoint) {
        let rule = format!("{endpoint} is the tunnel's own listen address");
        invalid.add(format!("{field}.endpoint"), rule);
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
