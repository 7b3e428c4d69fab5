//! The device that leads out of the node.

use std::io;

use netlink_packet_route::AddressFamily;

use crate::{
    endpoint::observed::ActualLink,
    netlink::{Socket, link::LinkId, query, route},
};
use netd_domain::IfName;

/// What the networks follow when nothing leads out.
pub(crate) const DEFAULT_MTU: u32 = 1500;

/// The configured device, else that of the IPv4 default route, else of the IPv6 one.
pub(crate) fn find(
    socket: &mut Socket,
    configured: Option<&IfName>,
) -> io::Result<Option<ActualLink>> {
    if let Some(name) = configured {
        return query::link(socket, LinkId::Name(name.as_str()));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let all = query::some_family(socket.dump(route::list(family, None)))?;
        // Only default routes (prefix length 0) are worth decoding: there may be thousands.
        let default = all.iter().filter(|message| message.body().get(1) == Some(&0));
        let mut routes = default.filter_map(query::read_route);
        if let Some((index, _)) = routes.find(|(_, route)| route.destination.prefix_len() == 0) {
            return query::link(socket, LinkId::Index(index));
        }
    }
    Ok(None)
}
