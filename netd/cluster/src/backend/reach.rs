//! What several backends ask: which address leads to a peer, what fits, what is routed.

use std::net::IpAddr;

use ipnet::IpNet;

use super::PeerProblem;
use crate::{Family, Lease, Local};
use netd_domain::{
    IfName,
    network::{MIN_MTU_V4, MIN_MTU_V6},
    overlay::{Hop, OverlayObject, OverlayRoute},
};

/// The key of a public address.
pub(super) fn public_field(family: Family) -> &'static str {
    match family {
        Family::V4 => "PublicIP",
        Family::V6 => "PublicIPv6",
    }
}

/// Whether a lease is of this backend. `false`: it is reserved for a node that has never
/// written it; there is nothing to route to, and nothing wrong.
pub(super) fn is_of(lease: &Lease, backend: &'static str) -> Result<bool, PeerProblem> {
    match lease.attrs.backend_type.as_deref() {
        Some(kind) if kind == backend => Ok(true),
        None if lease.reservation => Ok(false),
        None => Err(PeerProblem::new(
            "BackendType",
            format!("missing; the cluster's backend is {backend}"),
        )),
        Some(kind) => {
            let kind: String = kind.chars().take(64).collect();
            let problem = format!("{kind:?} is not the cluster's backend, {backend}");
            Err(PeerProblem::new("BackendType", problem))
        }
    }
}

/// Over which family packets of `pods` go: the same if this node has an address of it.
pub(super) fn outer(local: &Local, pods: Family) -> Result<Family, PeerProblem> {
    [pods, pods.other()].into_iter().find(|f| local.public(*f).is_some()).ok_or_else(|| {
        PeerProblem::new(public_field(pods), "this node has no address that peers could send to")
    })
}

/// The source of packets of a family that this node has an address of.
pub(super) fn source(local: &Local, outer: Family) -> Result<IpAddr, PeerProblem> {
    local.source(outer).ok_or_else(|| {
        PeerProblem::new(public_field(outer), format!("this node has no {outer} address"))
    })
}

/// A peer's address, fit to be sent to.
pub(super) fn remote(local: &Local, lease: &Lease, outer: Family) -> Result<IpAddr, PeerProblem> {
    let ip = remote_behind_router(lease, outer)?;
    if local.is_own(ip) {
        return Err(own_address(ip));
    }
    Ok(ip)
}

/// The same where several nodes may share an address, told apart by their ports.
pub(super) fn remote_behind_router(lease: &Lease, outer: Family) -> Result<IpAddr, PeerProblem> {
    let field = public_field(outer);
    let ip = lease.attrs.public(outer).ok_or_else(|| {
        PeerProblem::new(field, format!("missing; this node reaches its peers over {outer}"))
    })?;
    let wrong = match ip {
        _ if ip.is_unspecified() => Some("no address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0 => Some("nobody's address"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("an IPv4 address"),
        _ => None,
    };
    match wrong {
        Some(what) => Err(PeerProblem::new(
            field,
            format!("{ip} is {what}; give the node an address that others can send to"),
        )),
        None => Ok(ip),
    }
}

/// Two nodes with one address, or a lease that this node had before.
pub(super) fn own_address(ip: IpAddr) -> PeerProblem {
    let problem = format!(
        "{ip} is this node's own address: either two nodes announce it (give each its own), \
         or the lease is a former one of this node, which ends by itself"
    );
    PeerProblem::new(public_field(Family::of(ip)), problem)
}

/// What fits into packets of `under` bytes beside `overhead`.
pub(super) fn inner_mtu(under: u32, overhead: u32, pods: Family) -> Result<u32, PeerProblem> {
    let least = match pods {
        Family::V4 => MIN_MTU_V4,
        Family::V6 => MIN_MTU_V6,
    };
    let left = under.saturating_sub(overhead);
    if left < least {
        let problem = format!(
            "{under} bytes of the underlay leave {left} beside {overhead} of encapsulation; \
             {pods} needs {least}"
        );
        return Err(PeerProblem::new("MTU", problem));
    }
    Ok(left)
}

/// A device's own address: the first of a subnet, alone, so that it brings no route.
pub(super) fn host_address(subnet: IpNet) -> IpNet {
    IpNet::from(subnet.network())
}

/// A device's own addresses, of the families that go over it.
pub(super) fn addresses(local: &Local, families: impl Iterator<Item = Family>) -> Vec<IpNet> {
    families.filter_map(|f| local.first_subnet(f)).map(host_address).collect()
}

/// A lease's subnets of the families that the cluster has.
pub(super) fn subnets(local: &Local, lease: &Lease) -> impl Iterator<Item = (Family, IpNet)> {
    let subnets = lease.subnets;
    let families: Vec<_> = local.cluster.families().collect();
    families.into_iter().filter_map(move |f| Some((f, subnets.of(f)?)))
}

/// A route.
pub(super) fn route(destination: IpNet, hop: Hop) -> OverlayObject {
    OverlayObject::Route(OverlayRoute { destination, hop, mtu: None })
}

/// A route through a node on the same link.
pub(super) fn direct(local: &Local, destination: IpNet, gateway: IpAddr) -> OverlayObject {
    let device = local.underlay.device.clone();
    route(destination, Hop::Via { gateway, device, onlink: false })
}

/// One route for all of the cluster's pods of a family.
pub(super) fn whole(local: &Local, family: Family, device: &IfName) -> Option<OverlayObject> {
    Some(route(local.cluster.network(family)?, Hop::Device(device.clone())))
}

/// Own subnets' unused addresses lead nowhere, if that is wished for.
pub(super) fn blackholes(local: &Local) -> impl Iterator<Item = OverlayObject> {
    let own = local.subnets.iter().filter(|_| local.blackhole).flat_map(|s| s.iter());
    own.map(|subnet| route(subnet, Hop::Blackhole))
}

/// A device's name that is known to be a valid one.
pub(super) fn device(name: String) -> Result<IfName, PeerProblem> {
    name.parse()
        .map_err(|e: netd_domain::ids::NameError| PeerProblem::new("Backend.VNI", e.to_string()))
}
