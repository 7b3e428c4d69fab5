//! The device that leads out of the node.

use std::io;

use netlink_packet_route::AddressFamily;

use super::{
    endpoint::observed::ActualLink,
    message::{link::Which, net},
    netlink::Socket,
    observe,
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
        return observe::link(socket, Which::Name(name.as_str()));
    }
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let all = observe::some_family(socket.dump(net::get_routes(family, None)))?;
        // Only default routes (prefix length 0) are worth decoding: there may be thousands.
        let default = all.iter().filter(|message| message.body().get(1) == Some(&0));
        let mut routes = default.filter_map(observe::read_route);
        if let Some((index, _)) = routes.find(|(_, route)| route.destination.prefix_len() == 0) {
            return observe::link(socket, Which::Index(index));
        }
    }
    Ok(None)
}
