//! Routes of other programs into this node's own subnets: packets to its pods go elsewhere.

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

use super::{
    dump,
    entry_apply::EntryOp,
    objects::is_flannels_metric,
    report::{OverlayReport, OverlaySubject},
    worker::Overlay,
};
use crate::{
    DataplaneError,
    error::failed,
    netlink::{
        entry::{BOOT_PROTOCOL, HeldRoute, KernelHop, OverlayEntry},
        link::LinkId,
        overlay_entry,
        query::some_family,
        route::NETD_PROTOCOL,
    },
    network::underlay,
};

impl Overlay {
    /// Removes flannel's leftovers over overlay devices, and reports every other route that
    /// leads into `own` by a device that is not netd's. `overlay`: indexes of overlay devices.
    pub(super) fn clear_own_subnets(
        &mut self,
        own: &[IpNet],
        overlay: &[u32],
        report: &mut OverlayReport,
    ) -> Result<(), DataplaneError> {
        for route in self.routes_into(own)? {
            let name = self.device_name(&route)?;
            let is_overlay = route.hop.link().is_some_and(|link| overlay.contains(&link))
                || name.starts_with("flannel");
            let is_flannels = route.protocol == BOOT_PROTOCOL && is_flannels_metric(&route);
            if is_overlay && is_flannels {
                let names = std::collections::HashMap::new();
                self.apply(EntryOp::Remove, &[OverlayEntry::Route(route)], &names, report)?;
                continue;
            }
            let index = route.hop.link().unwrap_or_default();
            if !is_overlay && underlay::is_own(&self.kernel.shared, index, &name) {
                continue;
            }
            let text = format!("the route {}", shown(&route, &name));
            let errno = format!(
                "it leads packets to this node's own pods elsewhere; delete it (ip route delete {})",
                shown(&route, &name)
            );
            let error = DataplaneError::Kernel { operation: text.clone(), errno };
            report.refused.push((OverlaySubject::Leftover(text), error));
        }
        Ok(())
    }

    /// Routes of the main table that other programs made and that win over the way to the pods.
    fn routes_into(&mut self, own: &[IpNet]) -> Result<Vec<HeldRoute>, DataplaneError> {
        let mut found = Vec::new();
        for (family, is_v4) in [(AddressFamily::Inet, true), (AddressFamily::Inet6, false)] {
            if !own.iter().any(|net| net.addr().is_ipv4() == is_v4) {
                continue;
            }
            for protocol in FOREIGN_PROTOCOLS {
                let request = overlay_entry::get_routes(family, protocol);
                let all = some_family(self.kernel.socket.dump(request));
                let all = all.map_err(failed("reading routes into this node's subnets"))?;
                let routes = all.iter().filter_map(|m| overlay_entry::read_route(m.body()));
                found.extend(routes.filter(|r| r.protocol != NETD_PROTOCOL && wins(r, own)));
            }
        }
        Ok(found)
    }

    fn device_name(&mut self, route: &HeldRoute) -> Result<String, DataplaneError> {
        let Some(index) = route.hop.link() else { return Ok(String::new()) };
        let link = dump::link(&mut self.kernel.socket, LinkId::Index(index));
        let link = link.map_err(failed("reading the device of a route"))?;
        Ok(link.map(|link| link.name).unwrap_or_default())
    }
}

/// Who makes routes by hand or by a daemon (uapi/linux/rtnetlink.h). The kernel filters, so that
/// netd's own, which may be thousands, are not read again.
const FOREIGN_PROTOCOLS: [u8; 8] = [BOOT_PROTOCOL, 4, 11, 12, 16, 186, 187, 188];

/// Whether a route into one of the subnets wins over the connected one, which has the metric 0
/// in IPv4 and 256 in IPv6.
fn wins(route: &HeldRoute, own: &[IpNet]) -> bool {
    let connected = if route.destination.addr().is_ipv4() { 0 } else { 256 };
    own.iter().any(|own| match own.contains(&route.destination) {
        true => route.destination.prefix_len() > own.prefix_len() || route.metric <= connected,
        false => false,
    })
}

/// As `ip route` shows it.
fn shown(route: &HeldRoute, device: &str) -> String {
    let to = route.destination;
    let metric =
        if route.metric == 0 { String::new() } else { format!(" metric {}", route.metric) };
    match route.hop {
        KernelHop::Nowhere => format!("blackhole {to}{metric}"),
        KernelHop::Via { gateway, .. } => format!("{to} via {gateway} dev {device}{metric}"),
        KernelHop::Link(_) => format!("{to} dev {device}{metric}"),
        KernelHop::Other => format!("{to}{metric}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_win_over_the_way_to_the_pods() {
        let own = ["10.5.7.0/24".parse().unwrap(), "fd00:5:0:7::/64".parse().unwrap()];
        let route = |to: &str, metric| {
            let destination = to.parse().unwrap();
            let hop = KernelHop::Link(3);
            HeldRoute { destination, metric, protocol: BOOT_PROTOCOL, hop, mtu: None }
        };
        for (to, metric) in [("10.5.7.0/24", 0), ("10.5.7.128/25", 77), ("fd00:5:0:7::/80", 1024)] {
            assert!(wins(&route(to, metric), &own), "{to}");
        }
        for (to, metric) in
            [("10.5.7.0/24", 1), ("10.5.0.0/16", 0), ("fd00:5:0:7::/64", 1024), ("0.0.0.0/0", 0)]
        {
            assert!(!wins(&route(to, metric), &own), "{to}");
        }
    }
}
