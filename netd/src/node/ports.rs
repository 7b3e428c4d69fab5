//! Which endpoint has which host port. Pure.

use std::{collections::HashMap, net::IpAddr};

use netd_domain::{EndpointKey, HostPort, PortMapping, Protocol, port_mapping::overlap};

/// Host ports in use on this node.
#[derive(Debug, Default)]
pub(crate) struct HostPorts {
    held: HashMap<(Protocol, u16), Vec<Holder>>,
}

/// The address (`None`: all, unspecified: all of its family), and the endpoint.
type Holder = (Option<IpAddr>, EndpointKey);

impl HostPorts {
    /// Takes all of `ports` for `owner`, or none.
    ///
    /// # Errors
    /// The first port that another endpoint has, and that endpoint.
    pub(crate) fn take(
        &mut self,
        owner: &EndpointKey,
        ports: &[PortMapping],
    ) -> Result<(), (HostPort, EndpointKey)> {
        for port in ports {
            if let Some(holder) = self.holder(port).filter(|h| *h != owner) {
                return Err((port.into(), holder.clone()));
            }
        }
        for port in ports {
            let slot = self.held.entry((port.protocol, port.host_port)).or_default();
            slot.push((port.host_ip, owner.clone()));
        }
        Ok(())
    }

    /// Frees those of `ports` that `owner` has.
    pub(crate) fn release(&mut self, owner: &EndpointKey, ports: &[PortMapping]) {
        for port in ports {
            let key = (port.protocol, port.host_port);
            if let Some(slot) = self.held.get_mut(&key) {
                slot.retain(|(_, holder)| holder != owner);
                if slot.is_empty() {
                    self.held.remove(&key);
                }
            }
        }
    }

    /// Who has this port on an address that it would be on too.
    fn holder(&self, port: &PortMapping) -> Option<&EndpointKey> {
        let slot = self.held.get(&(port.protocol, port.host_port))?;
        slot.iter().find(|(ip, _)| overlap(*ip, port.host_ip)).map(|(_, holder)| holder)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(s: &str) -> EndpointKey {
        EndpointKey { sandbox: s.parse().unwrap(), ifname: "eth0".parse().unwrap() }
    }

    fn port(ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortMapping {
        let host_ip = ip.map(|s| s.parse().unwrap());
        PortMapping { host_port, container_port: 80, protocol, host_ip }
    }

    #[test]
    fn a_port_has_one_holder_an_address_and_protocol() {
        let mut ports = HostPorts::default();
        ports.take(&key("a"), &[port(Some("192.0.2.1"), 80, Protocol::Tcp)]).unwrap();
        ports.take(&key("b"), &[port(Some("192.0.2.2"), 80, Protocol::Tcp)]).unwrap();
        ports.take(&key("c"), &[port(None, 80, Protocol::Udp)]).unwrap();
        let (taken, holder) = ports.take(&key("d"), &[port(None, 80, Protocol::Tcp)]).unwrap_err();
        assert_eq!((taken.to_string().as_str(), holder), ("80/tcp", key("a")));
    }

    #[test]
    fn every_address_of_ipv4_and_every_one_of_ipv6_have_holders_of_their_own() {
        let mut ports = HostPorts::default();
        let tcp = |ip| [port(ip, 80, Protocol::Tcp)];
        ports.take(&key("a"), &tcp(Some("0.0.0.0"))).unwrap();
        ports.take(&key("b"), &tcp(Some("::"))).unwrap();
        for clash in [None, Some("192.0.2.1"), Some("2001:db8::1"), Some("::")] {
            ports.take(&key("c"), &tcp(clash)).unwrap_err();
        }
        ports.release(&key("b"), &tcp(Some("::")));
        ports.take(&key("c"), &tcp(Some("2001:db8::1"))).unwrap();
    }

    #[test]
    fn all_or_none_are_taken_and_what_is_given_back_is_free() {
        let mut ports = HostPorts::default();
        ports.take(&key("a"), &[port(None, 80, Protocol::Tcp)]).unwrap();
        let both = [port(None, 81, Protocol::Tcp), port(None, 80, Protocol::Tcp)];
        ports.take(&key("b"), &both).unwrap_err();
        ports.take(&key("c"), &both[..1]).unwrap();
        ports.release(&key("a"), &both[1..]);
        ports.take(&key("b"), &both[1..]).unwrap();
    }
}
