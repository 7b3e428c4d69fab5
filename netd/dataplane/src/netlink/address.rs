//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope},
};
use rtnetlink::AddressMessageBuilder;

use super::{attribute, missing};

/// The family of an address.
pub(crate) fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// The address that stands for every one of its family.
pub(crate) fn unspecified(v4: bool) -> IpAddr {
    if v4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Adds an address to the link `index`. IPv6 without DAD: usable at once.
pub(crate) fn add(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::NewAddress(message(index, net))
}

/// Removes an address from the link `index`.
pub(crate) fn remove(index: u32, net: IpNet) -> RouteNetlinkMessage {
    RouteNetlinkMessage::DelAddress(message(index, net))
}

fn message(index: u32, net: IpNet) -> AddressMessage {
    match net {
        IpNet::V4(v4) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(v4.addr(), v4.prefix_len())
            .build(),
        IpNet::V6(v6) => {
            let mut message = AddressMessageBuilder::<Ipv6Addr>::new()
                .index(index)
                .address(v6.addr(), v6.prefix_len())
                .build();
            if v6.addr().is_unicast_link_local() {
                message.header.scope = AddressScope::Link;
            }
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            message
        }
    }
}

/// Asks for the addresses of the link `index` (as a dump).
pub(crate) fn list(index: u32) -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(missing::addresses_of(index))
}

/// Asks for the addresses of the link `index` of the namespace that has the id `netns` in the
/// socket's (as a dump).
pub(crate) fn list_in(netns: i32, index: u32) -> RouteNetlinkMessage {
    let mut message = missing::addresses_of(index);
    message.attributes.push(AddressAttribute::TargetNetNsId(netns));
    RouteNetlinkMessage::GetAddress(message)
}

/// Reads an address back.
pub(crate) fn read(message: &AddressMessage) -> Option<IpNet> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    IpNet::new(local.or(any)?, message.header.prefix_len).ok()
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldAddress {
    pub link: u32,
    pub net: IpNet,
    flags: u32,
}

impl HeldAddress {
    /// Not one of those that every link may have.
    pub(crate) fn is_global(&self) -> bool {
        match self.net.addr() {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        }
    }

    /// Global, and here to stay: not temporary, deprecated or being checked.
    pub(crate) fn is_lasting(&self) -> bool {
        /// `IFA_F_TEMPORARY | IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE`; of
        /// IPv4 the first one means something else.
        const PASSING: u32 = 0x01 | 0x08 | 0x20 | 0x40;
        self.is_global() && (self.net.addr().is_ipv4() || self.flags & PASSING == 0)
    }
}

/// Reads an address message.
pub(crate) fn read_body(body: &[u8]) -> Option<HeldAddress> {
    const HEADER: usize = 8;
    let &[_, prefix, flags, _] = body.first_chunk::<4>()?;
    let (mut local, mut any, mut flags) = (None, None, u32::from(flags));
    for (kind, value) in attribute::each(body.get(HEADER..)?) {
        match kind {
            1 => any = attribute::ip(value),
            2 => local = attribute::ip(value),
            8 => flags = attribute::u32_at(value, 0)?,
            _ => {}
        }
    }
    let net = IpNet::new(local.or(any)?, prefix).ok()?;
    Some(HeldAddress { link: attribute::u32_at(body, 4)?, net, flags })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const INET: u8 = libc::AF_INET as u8;
    const INET6: u8 = libc::AF_INET6 as u8;

    #[test]
    fn of_ipv6_addresses_only_lasting_ones_count() {
        let address = |family: u8, flags: u32, ip: IpAddr| {
            let bytes = match ip {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let mut body = vec![family, 24, 0, 0, 3, 0, 0, 0, 8, 0, 8, 0];
            body.extend_from_slice(&flags.to_ne_bytes());
            body.extend_from_slice(&(bytes.len() as u16 + 4).to_ne_bytes());
            body.extend_from_slice(&[1, 0]);
            body.extend_from_slice(&bytes);
            read_body(&body).unwrap()
        };
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert!(address(INET, 0x81, v4).is_lasting(), "secondary");
        assert!(address(INET6, 0x80, v6).is_lasting());
        for passing in [0x01, 0x08, 0x20, 0x40] {
            let address = address(INET6, passing, v6);
            assert!(address.is_global() && !address.is_lasting(), "{passing}");
        }
        assert!(!address(INET6, 0, "fe80::1".parse().unwrap()).is_global());
    }

    #[test]
    fn of_junk_no_address_is_longer_than_it_can_be() {
        for length in 0..60 {
            let junk = vec![0xff; length];
            assert!(read_body(&junk).is_none_or(|a| a.net.prefix_len() <= 128));
        }
    }
}
