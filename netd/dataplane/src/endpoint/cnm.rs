//! Endpoints of the container network model: netd makes both ends of the pair on the host,
//! and the runtime moves the pod's side into the sandbox, where netd finds it.

use std::{io, os::fd::AsFd, sync::Arc};

use super::{
    attach::{self, Helpers},
    observed::ActualLink,
    teardown,
};
use crate::{
    Attached, DataplaneError,
    error::failed,
    events::Expected,
    exec::{
        context::{Context, pod_socket},
        namespace::Netns,
    },
    netlink::{link::LinkId, query},
};
use netd_domain::{IfName, PodSide, Wiring};

/// Where netd found the pod's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// There is no pair.
    Missing,
    /// On the host, or in another namespace than the sandbox's.
    Outside,
    /// In the sandbox, under this name. The runtime sets the name and the addresses before it
    /// brings the link up, so one that is down may still change.
    Inside { name: IfName, up: bool },
}

/// Makes the pair with both ends on the host, the pod's side down; replaces a pair of this
/// name. All or nothing.
pub(crate) fn prepare(
    kernel: &mut Context,
    helpers: &Helpers,
    wiring: &Arc<Wiring>,
) -> Result<Attached, DataplaneError> {
    let what = || format!("{}: looking for the link", wiring.host_ifname);
    let name = LinkId::Name(wiring.host_ifname.as_str());
    if query::link(&mut kernel.socket, name).map_err(failed(what()))?.is_some() {
        kernel.shared.table.lock().forget(&wiring.host_ifname);
        teardown::remove(kernel, &wiring.host_ifname)?;
    }
    let host = Netns::own().map_err(failed("opening the host's namespace"))?;
    attach::attach(kernel, helpers, &host, wiring, PodSide::Pending)
}

/// Finds the pod's side by its index, because the runtime chooses the name; `netns` is the
/// sandbox's namespace. As long as the link is not there, a carrier on the host's side is
/// reported as drift, and the caller looks again.
pub(crate) fn locate(
    kernel: &mut Context,
    netns: Option<&Netns>,
    wiring: &Wiring,
    pod_side: PodSide,
) -> Result<Seen, DataplaneError> {
    let what = || format!("{}: looking for the pod's side", wiring.host_ifname);
    let name = LinkId::Name(wiring.host_ifname.as_str());
    let near = query::link(&mut kernel.socket, name).map_err(failed(what()))?;
    let Some(near) = near.filter(|link| link.kind == "veth") else { return Ok(Seen::Missing) };
    let far = inside(kernel, netns, &near).map_err(failed(what()))?;
    let mut seen = Seen::Outside;
    if let Some(index) = far
        && let Some(netns) = netns
    {
        let mut pod = pod_socket(netns)?;
        let link = query::link(&mut pod, LinkId::Index(index)).map_err(failed(what()))?;
        let ours = link.filter(|link| link.peer == Some(near.index));
        if let Some((name, up)) = ours.and_then(|link| Some((link.name.parse().ok()?, link.up))) {
            seen = Seen::Inside { name, up };
        }
    }
    if pod_side == PodSide::Pending || seen == Seen::Outside {
        await_carrier(kernel, wiring, &near);
    }
    Ok(seen)
}

/// The host's side has a carrier when the runtime has brought the pod's side up.
fn await_carrier(kernel: &mut Context, wiring: &Wiring, near: &ActualLink) {
    kernel.shared.table.lock().expect(Expected {
        name: wiring.host_ifname.clone(),
        host: near.index,
        host_mac: wiring.host_mac.bytes(),
        pod: None,
        pod_mac: wiring.mac.bytes(),
        pod_name: wiring.ifname.clone(),
        mtu: wiring.mtu,
        bridge: near.master,
        addresses: Vec::new(),
        awaited: true,
    });
}

/// The index of the other end, if it is in `netns`.
fn inside(
    kernel: &mut Context,
    netns: Option<&Netns>,
    near: &ActualLink,
) -> io::Result<Option<u32>> {
    let (Some(netns), Some(id)) = (netns, near.peer_netns) else { return Ok(None) };
    let own = query::netns_id(&mut kernel.socket, netns.as_fd())?;
    Ok(near.peer.filter(|_| own == Some(id)))
}
