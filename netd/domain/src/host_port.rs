//! Host ports as errors and refusals name them.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{PortMapping, Protocol};

/// A port of the host. It is displayed as `80/tcp`, `192.0.2.1:80/udp` or
/// `[2001:db8::1]:80/sctp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// 1 to 65535.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The address of the host; `None`: all addresses of both families; unspecified: all of
    /// its family.
    pub ip: Option<IpAddr>,
}

impl From<&PortMapping> for HostPort {
    fn from(mapping: &PortMapping) -> Self {
        Self { port: mapping.host_port, protocol: mapping.protocol, ip: mapping.host_ip }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => write!(f, "{}/{}", SocketAddr::new(ip, self.port), self.protocol),
            None => write!(f, "{}/{}", self.port, self.protocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_port_is_shown_with_its_protocol_and_address() {
        let all = HostPort { port: 80, protocol: Protocol::Tcp, ip: None };
        assert_eq!(all.to_string(), "80/tcp");
        let v4 = HostPort { protocol: Protocol::Udp, ip: Some([192, 0, 2, 1].into()), ..all };
        assert_eq!(v4.to_string(), "192.0.2.1:80/udp");
        let v6 = HostPort { protocol: Protocol::Sctp, ip: "2001:db8::1".parse().ok(), ..all };
        assert_eq!(v6.to_string(), "[2001:db8::1]:80/sctp");
    }
}
