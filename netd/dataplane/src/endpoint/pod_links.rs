//! The links on the host that lead into pods, whoever made them, and the addresses behind
//! them: what the kernel says is in use, whatever records say.
//!
//! A veth's end lives as long as the namespace of the other end, so one whose other end is
//! in another namespace is a living pod's. The kernel tells the addresses of that other end
//! by the namespace's id. Those that no namespace shows (a virtual machine's) are neighbours
//! of the bridge whose MAC was learnt on one of its ports.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    net::IpAddr,
};

use super::observed::ActualLink;
use crate::{
    DataplaneError, PodLink,
    device_names::is_host_name,
    error::failed,
    exec::context::Context,
    netlink::{Socket, link, link_group::is_detached, query},
};
use netd_domain::{IfName, Mac};

/// The links that lead into pods, but for those named `known` and those being removed;
/// `bridges` are the networks'.
pub(crate) fn pod_links(
    kernel: &mut Context,
    bridges: &[IfName],
    known: &HashSet<IfName>,
) -> Result<Vec<PodLink>, DataplaneError> {
    let socket = &mut kernel.socket;
    let all = socket.dump_moving(&link::get_all(None)).map_err(failed("listing links"))?;
    let all = all.iter().filter_map(query::read_link).map(|link| (link.index, link));
    let all: HashMap<u32, ActualLink> = all.collect();
    let names = all.values().filter(|link| link.kind == "bridge");
    let names = names.filter_map(|link| Some((link.index, link.name.parse::<IfName>().ok()?)));
    let names: HashMap<u32, IfName> = names.collect();
    let mut found = Vec::new();
    for link in all.values() {
        let recorded = link.name.parse::<IfName>().is_ok_and(|name| known.contains(&name));
        let bridge = link.master.and_then(|index| names.get(&index));
        let port = bridge.is_some_and(|bridge| bridges.contains(bridge));
        if recorded || is_detached(link.group) || !(port || leads_into_a_namespace(link)) {
            continue;
        }
        let looked = examine(socket, link, bridge, port);
        found.extend(looked.map_err(failed(format!("{}: asking who is behind it", link.name)))?);
    }
    Ok(found)
}

/// Its other end is in another network namespace, which therefore lives. One that the kernel
/// is taking apart has no id any longer (-1).
pub(crate) fn leads_into_a_namespace(link: &ActualLink) -> bool {
    link.kind == "veth" && link.peer_netns.is_some_and(|id| id >= 0)
}

/// `None`: it went away meanwhile.
fn examine(
    socket: &mut Socket,
    link: &ActualLink,
    bridge: Option<&IfName>,
    port: bool,
) -> io::Result<Option<PodLink>> {
    let (mut mac, mut addresses) = (None, BTreeSet::new());
    if let (true, Some(netns), Some(peer)) =
        (leads_into_a_namespace(link), link.peer_netns, link.peer)
    {
        match query::link_in(socket, netns, peer) {
            Ok(Some(there)) => {
                mac = there.mac;
                addresses.extend(query::addresses_in(socket, netns, peer)?);
            }
            Ok(None) => return Ok(None),
            // Where netd itself runs in a container, the other end of its uplink is.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            Err(e) => return Err(e),
        }
    }
    if let (true, Some(bridge)) = (port, link.master) {
        addresses.extend(neighbours_behind(socket, link.index, bridge)?);
    }
    let ours = link.name.parse().ok().filter(is_host_name);
    Ok(Some(PodLink {
        name: link.name.clone(),
        index: link.index,
        ours,
        bridge: bridge.cloned(),
        mac,
        host_mac: link.mac,
        mtu: link.mtu,
        addresses: addresses.into_iter().collect(),
    }))
}

/// The bridge's neighbours whose MAC was learnt on the port.
fn neighbours_behind(socket: &mut Socket, port: u32, bridge: u32) -> io::Result<Vec<IpAddr>> {
    let macs: HashSet<Mac> = query::learnt_on(socket, port)?.into_iter().collect();
    if macs.is_empty() {
        return Ok(Vec::new());
    }
    let known = query::living_neighbours(socket, bridge)?.into_iter();
    Ok(known.filter(|(_, mac)| macs.contains(mac)).map(|(ip, _)| ip).collect())
}
