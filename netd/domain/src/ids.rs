//! Names and identities. Each type can only hold a valid value.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name was refused; the text names the value and the rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

/// The beginning of a refused value, which can have megabytes.
fn shown(value: &str) -> String {
    const MAX_CHARS: usize = 64;
    let mut text: String = value.chars().take(MAX_CHARS).flat_map(char::escape_default).collect();
    if value.chars().nth(MAX_CHARS).is_some() {
        text.push_str("...");
    }
    text
}

macro_rules! string_id {
    ($name:ident, $check:path) => {
        string_id!($name, $check, parse);
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(s: String) -> Result<Self, NameError> {
                s.parse()
            }
        }
    };
    ($name:ident, $check:path, parse) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                $check(s)
                    .map(|()| Self(s.to_owned()))
                    .map_err(|rule| NameError(format!("\"{}\": {rule}", shown(s))))
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A runtime's id of a pause sandbox (CNI's container id): 1 to 256 bytes of
/// `[A-Za-z0-9_.-]`, starting with a letter or a digit (CNI spec 1.1.0, section 2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);
string_id!(SandboxId, check_sandbox);

fn check_sandbox(s: &str) -> Result<(), &'static str> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    match s.as_bytes() {
        [] => Err("a sandbox id must not be empty"),
        b if b.len() > 256 => Err("a sandbox id has at most 256 bytes"),
        [first, rest @ ..] if first.is_ascii_alphanumeric() && rest.iter().all(|b| ok(*b)) => {
            Ok(())
        }
        _ => Err(
            "a sandbox id is of letters, digits, '_', '.', '-', and starts with a letter or a digit",
        ),
    }
}

/// A network device's name as the kernel allows it: 1 to 15 bytes, no `/`, no `:`,
/// no white space, not `.` or `..`; here ASCII graphic characters only.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);
string_id!(IfName, check_ifname, parse);

impl IfName {
    /// Stands for every interface of a sandbox in a [`super::Tombstone`]. No request
    /// can name it.
    pub fn every() -> Self {
        Self("*".to_owned())
    }
}

/// For records: accepts [`IfName::every`] too, which no request can name.
impl TryFrom<String> for IfName {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        if s == "*" { Ok(Self::every()) } else { s.parse() }
    }
}

fn check_ifname(s: &str) -> Result<(), &'static str> {
    match s {
        "" => Err("an interface name must not be empty"),
        "." | ".." | "lo" | "all" | "default" => Err("this interface name is reserved"),
        _ if s.len() > 15 => Err("an interface name has at most 15 bytes"),
        _ if s.bytes().all(|b| b.is_ascii_graphic() && !b"/:%\"\\*".contains(&b)) => Ok(()),
        _ => Err(
            "an interface name is of printable ASCII without white space and '/', ':', '%', '*', '\"', '\\'",
        ),
    }
}

/// Hex digits after the prefix of an endpoint's devices on the host.
const DEVICE_DIGITS: usize = 12;

impl IfName {
    /// Whether netd gives such names to endpoints' devices on the host: `nd` (the host's
    /// side), `ni` (the device that limits what the pod sends) or `np` (the pod's side until
    /// a runtime moves it), and 12 hex digits.
    pub fn is_endpoint_device(&self) -> bool {
        let digits = ["nd", "ni", "np"].iter().find_map(|kind| self.0.strip_prefix(kind));
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        digits.is_some_and(|d| d.len() == DEVICE_DIGITS && d.bytes().all(hex))
    }
}

/// A network's name: a DNS label, 1 to 63 of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);
string_id!(NetworkName, check_network);

impl NetworkName {
    /// The network of a request that names none.
    pub const DEFAULT: &'static str = "default";
}

fn check_network(s: &str) -> Result<(), &'static str> {
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let b = s.as_bytes();
    if b.is_empty() || b.len() > 63 {
        return Err("a network name has 1 to 63 bytes");
    }
    if !b.iter().all(inner) || b.starts_with(b"-") || b.ends_with(b"-") {
        return Err(
            "a network name is of a-z, 0-9 and '-', and starts and ends with a letter or a digit",
        );
    }
    Ok(())
}

/// What identifies an endpoint: the sandbox and the interface's name inside it
/// (CNI spec 1.1.0: an attachment is (container id, interface name)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointKey {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The interface inside the sandbox.
    pub ifname: IfName,
}

/// The interface of a pod's primary endpoint (containerd's CRI reads this one's address).
pub const DEFAULT_IFNAME: &str = "eth0";

impl EndpointKey {
    /// Stands for every endpoint of a sandbox in a [`super::Tombstone`].
    pub fn every(sandbox: SandboxId) -> Self {
        Self { sandbox, ifname: IfName::every() }
    }

    /// Comes before every endpoint of the sandbox in the order of keys, and is none of them.
    pub fn before_all(sandbox: SandboxId) -> Self {
        Self { sandbox, ifname: IfName(String::new()) }
    }

    /// Name of the host's side. It is always the same for a key; another endpoint has the
    /// same one only by a collision of 48 bits of FNV-1a, which an attach checks for.
    pub fn host_ifname(&self) -> IfName {
        let text = format!("{}/{}", self.sandbox, self.ifname);
        IfName(format!("nd{:012x}", fnv1a(text.as_bytes()) >> 16))
    }

    /// The name of the pod's side as long as it is on the host; the same digits.
    pub fn staging_ifname(&self) -> IfName {
        let host = self.host_ifname();
        IfName(format!("np{}", host.as_str().get(2..).unwrap_or_default()))
    }
}

impl fmt::Display for EndpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.sandbox, self.ifname)
    }
}

/// FNV-1a, 64 bits. Names in the kernel and on disk depend on it, so it has to stay the same
/// over releases, which the standard library's hasher does not promise.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
}

/// A namespace's identity on this boot: device and inode of its nsfs file, and the kernel's
/// cookie. Inodes are used again after a namespace is gone, cookies are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode.
    pub inode: u64,
    /// `SO_NETNS_COOKIE`; `None`: a kernel before 5.14, or a record of a netd that did not
    /// ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "inode {}", self.inode)?;
        self.cookie.map_or(Ok(()), |cookie| write!(f, ", cookie {cookie}"))
    }
}

impl NetnsId {
    /// Whether both are the same namespace, as far as it is known: where one has no cookie,
    /// device and inode decide.
    pub fn is_same(&self, other: &Self) -> bool {
        let cookies = self.cookie.zip(other.cookie);
        (self.dev, self.inode) == (other.dev, other.inode) && cookies.is_none_or(|(a, b)| a == b)
    }
}

/// An Ethernet address, unicast and not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes.
    pub fn bytes(&self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address made from `seed`: the same seed, the same address.
    pub fn derived(seed: &[u8]) -> Self {
        let h = fnv1a(seed).to_be_bytes();
        Self([(h[0] & 0xfc) | 0x02, h[1], h[2], h[3], h[4], h[5]])
    }

    /// The link-local address that an IPv6 interface with this MAC has to have (RFC 4291,
    /// sections 2.1 and 2.5.1, Modified EUI-64).
    pub fn link_local(&self) -> Ipv6Addr {
        let m = self.0;
        let tail = [m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]];
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8..].copy_from_slice(&tail);
        Ipv6Addr::from(octets)
    }

    /// The address of the pod that has `ip`: peers' neighbour caches stay right
    /// when the address comes back in another pod.
    pub fn of_ip(ip: std::net::IpAddr) -> Self {
        match ip {
            std::net::IpAddr::V4(v4) => {
                let o = v4.octets();
                Self([0x0a, 0x58, o[0], o[1], o[2], o[3]])
            }
            std::net::IpAddr::V6(v6) => Self::derived(&v6.octets()),
        }
    }
}

impl FromStr for Mac {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        let fail = |rule: &str| NameError(format!("\"{}\": {rule}", shown(s)));
        let shape = || fail("a MAC address is six bytes in hex: 0a:58:0a:58:00:05");
        let mut bytes = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(shape)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| shape())?;
        }
        match (parts.next(), bytes) {
            (Some(_), _) => Err(shape()),
            (None, b) if b[0] & 1 == 1 => {
                Err(fail("a MAC address must be unicast (first byte even)"))
            }
            (None, [0, 0, 0, 0, 0, 0]) => Err(fail("a MAC address must not be all zero")),
            (None, b) => Ok(Self(b)),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = NameError;
    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        assert!("abc_1.2-3".parse::<SandboxId>().is_ok());
        for bad in ["", "-a", "../x", "a/b", "a b", &"x".repeat(257)] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad}");
        }
        for bad in ["", ".", "..", "lo", "a/b", "a b", "abcdefghijklmnop", "e%d", "é"] {
            assert!(bad.parse::<IfName>().is_err(), "{bad}");
        }
        assert!("eth0".parse::<IfName>().is_ok());
        for bad in ["", "A", "-a", "a-", "a_b", &"x".repeat(64)] {
            assert!(bad.parse::<NetworkName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_inode_that_came_back_is_another_namespace() {
        let id = |inode, cookie| NetnsId { dev: 4, inode, cookie };
        assert!(id(7, Some(1)).is_same(&id(7, Some(1))));
        assert!(!id(7, Some(1)).is_same(&id(7, Some(2))));
        assert!(!id(7, Some(1)).is_same(&id(8, Some(1))));
        // A record of an earlier release, or an old kernel.
        assert!(id(7, None).is_same(&id(7, Some(2))));
        let old: NetnsId = serde_json::from_str(r#"{"dev":4,"inode":7}"#).unwrap();
        assert_eq!(old, id(7, None));
        assert_eq!(serde_json::to_string(&old).unwrap(), r#"{"dev":4,"inode":7}"#);
        let new = serde_json::to_string(&id(7, Some(5))).unwrap();
        assert_eq!(new, r#"{"dev":4,"inode":7,"cookie":5}"#);
    }

    #[test]
    fn a_refused_value_is_named_but_not_in_full() {
        let err = "x".repeat(1 << 20).parse::<IfName>().unwrap_err().to_string();
        assert!(err.len() < 200 && err.contains("xxx..."), "{err}");
    }

    #[test]
    fn macs_parse_print_and_refuse_multicast() {
        let mac: Mac = "0A:58:0a:58:00:05".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:58:0a:58:00:05");
        for bad in [
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "0a:58",
            "0a:58:0a:58:00:05:06",
            "zz:58:0a:58:00:05",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
        assert_eq!(Mac::derived(b"x").bytes()[0] & 3, 2);
    }

    #[test]
    fn host_names_are_stable_and_fit() {
        let key = EndpointKey { sandbox: "abc".parse().unwrap(), ifname: "eth0".parse().unwrap() };
        assert_eq!(key.host_ifname(), key.host_ifname());
        assert_eq!(key.host_ifname().as_str().len(), 14);
        assert!(key.host_ifname().is_endpoint_device());
        for other in ["cni0", "nd0", "nd0123456789aB", "nd0123456789abc", "eth0"] {
            assert!(!other.parse::<IfName>().unwrap().is_endpoint_device(), "{other}");
        }
    }
}
