//! Planned steps as netlink requests.

use super::{
    indexes::Indexes,
    op::{LinkChange, Op, Shaped},
};
use crate::netlink::{
    Batch, address,
    link::{self, LinkId, LinkSettings},
    neighbour, route, tc,
};
use netd_domain::Route;

const PUT: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
/// Refused with EEXIST if another route to the destination has the metric.
const NEW: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
/// After other routes to the destination.
const APPEND: u16 = (libc::NLM_F_CREATE | libc::NLM_F_APPEND) as u16;

/// Adds the request of `op`, except for steps that [`super::apply`] carries out by themselves.
pub(super) fn encode(op: &Op, at: &Indexes, batch: &mut Batch) {
    let (host, pod) = (LinkId::Index(at.host), LinkId::Index(at.pod));
    match op {
        Op::DeleteLink => batch.route(link::delete(host), 0),
        Op::SetHostLink(change) => batch.route(link::change(host, &settings(change)), 0),
        Op::LowerHostLink => batch.route(link::set_down(host), 0),
        Op::RenameHostLink { to, .. } => batch.route(link::rename(at.host, to), 0),
        Op::HostRoute(net) => {
            let route = Route { destination: *net, gateway: None };
            batch.route(route::add(at.host, &route), PUT);
        }
        Op::HostNeighbour(n) => batch.route(neighbour::add(at.host, n.ip, n.mac.to), PUT),
        Op::PodLoopbackUp => batch.route(link::set_up(LinkId::Name("lo")), 0),
        Op::SetPodLink(change) => batch.route(link::change(pod, &settings(change)), 0),
        Op::RemovePodAddress(net) => batch.route(address::remove(at.pod, *net), 0),
        Op::PodAddress(net) => batch.route(address::add(at.pod, *net), PUT),
        Op::PodNeighbour(n) => batch.route(neighbour::add(at.pod, n.ip, n.mac.to), PUT),
        // Routes of the sandbox's other interfaces to the same destination stay.
        Op::PodRoute(route) if is_default(route) => batch.route(route::add(at.pod, route), NEW),
        Op::PodRoute(route) => batch.route(route::add(at.pod, route), APPEND),
        Op::ReplacePodRoute(route) => batch.route(route::add(at.pod, route), PUT),
        Op::IfbUp => batch.route(link::set_up(LinkId::Index(at.ifb)), 0),
        Op::Limit(Shaped::HostLink, limit) => tc::limit(batch, at.host, limit.to),
        Op::Limit(Shaped::Ifb, limit) => tc::limit(batch, at.ifb, limit.to),
        Op::IngressHook => tc::hook(batch, at.host),
        Op::Redirect => tc::redirect(batch, at.host, at.ifb),
        // Carried out by themselves, in `apply`.
        Op::CreateVeth | Op::CreateIfb { .. } | Op::LocalRoutes => {}
    }
}

/// Whether a route leads to all of its family.
pub(super) fn is_default(route: &Route) -> bool {
    route.destination.prefix_len() == 0
}

fn settings(change: &LinkChange) -> LinkSettings {
    LinkSettings {
        up: change.up,
        mtu: change.mtu.map(|mtu| mtu.to),
        mac: change.mac.map(|mac| mac.to),
        master: change.master.map(|master| master.to),
        group: change.group.map(|group| group.to),
        hairpin: change.hairpin,
        no_autoconf: change.no_autoconf,
        forwarding: change.forwarding,
    }
}
