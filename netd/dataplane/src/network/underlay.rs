//! The device that leads out of the node.

use std::io;

use netlink_packet_route::AddressFamily;

use crate::{
    endpoint::observed::ActualLink,
    exec::context::SharedContext,
    netlink::{Socket, link::LinkId, query, route},
};
use netd_domain::IfName;

/// What the networks follow when nothing leads out.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// The configured device, else that of the best IPv4 default route, else of the best IPv6 one.
/// netd's own devices don't count.
pub(crate) fn find(
    socket: &mut Socket,
    configured: Option<&IfName>,
    shared: &SharedContext,
) -> io::Result<Option<ActualLink>> {
    if let Some(name) = configured {
        return query::link(socket, LinkId::Name(name.as_str()));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let all = query::some_family(socket.dump(route::list(family, None)))?;
        // Only default routes (prefix length 0) are worth decoding: there may be thousands.
        let default = all.iter().filter(|message| message.body().get(1) == Some(&0));
        let routes = default.filter_map(query::read_route);
        // In the order of their metrics, as the kernel has them.
        for (index, _) in routes.filter(|(_, route)| route.destination.prefix_len() == 0) {
            let link = query::link(socket, LinkId::Index(index))?;
            if let Some(link) = link.filter(|link| !is_own(shared, link.index, &link.name)) {
                return Ok(Some(link));
            }
        }
    }
    Ok(None)
}

/// Whether a device is netd's or flannel's: what leaves by it comes back to netd, and its MTU
/// is made of the underlay's.
pub(crate) fn is_own(shared: &SharedContext, index: u32, name: &str) -> bool {
    is_own_name(name) || shared.table.lock().is_bridge(index)
}

fn is_own_name(name: &str) -> bool {
    const BRIDGE_DIGITS: usize = 12;
    let of_endpoint = name.parse::<IfName>().is_ok_and(|name| name.is_endpoint_device());
    let digits = name.strip_prefix("nbr").unwrap_or_default();
    let is_digits = digits.len() == BRIDGE_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    of_endpoint || is_digits || name == "cni0" || name.starts_with("flannel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_devices_are_known_by_their_names() {
        for own in ["cni0", "flannel.1", "flannel-v6.1", "flannel0", "flannel-wg", "flannel.ipip"] {
            assert!(is_own_name(own), "{own}");
        }
        assert!(is_own_name("nd0123456789ab") && is_own_name("nbr0123456789ab"));
        for other in ["eth0", "ndmz0", "nbr0", "docker0", "br0", "wg0", "tun0", "cni1"] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
