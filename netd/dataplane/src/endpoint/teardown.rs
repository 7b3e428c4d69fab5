//! Removes links in two steps.
//!
//! Deleting a veth takes the caller 20 ms in `rcu_barrier`, and as long for each of ten in one
//! message; deleting a whole link group takes it once. So a detach takes the links down and
//! puts them into a link group of netd's, and the reaper's thread deletes the group.
//!
//! While the kernel deletes a group it holds the rtnl lock for 0.3 to 0.5 ms a link. So there
//! are many small groups, and attaches go on in between.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use netlink_packet_route::link::InfoKind;

use super::{observed::ActualLink, pod_links::leads_into_a_namespace};
use crate::{
    DataplaneError, HostLink,
    device_names::{host_name, ifb_name, is_host_name},
    error::{failed, refused},
    exec::context::Context,
    netlink::{
        Batch, Refusal,
        link::{self, LinkId},
        link_group::is_detached,
        query,
    },
};
use netd_domain::{IfName, Wiring};

/// Detaches an endpoint's links; those that are missing are no error.
pub(crate) fn detach_link(kernel: &mut Context, wiring: &Wiring) -> Result<(), DataplaneError> {
    let host = &wiring.host_ifname;
    let ifb = ifb_name(host);
    // Changes of the link are no drift from here on.
    kernel.shared.table.lock().forget(host);
    let names = [Some(host), (wiring.bandwidth.egress_rate > 0).then_some(&ifb)];
    detach_all(kernel, names.into_iter().flatten().map(|name| LinkId::Name(name.as_str())))
        .map_err(|e| e.of(host))
}

/// As [`detach_link`], but looks at the devices first and leaves those of others alone: only
/// a veth with the endpoint's MAC, and an ifb, are netd's.
pub(crate) fn detach_own_link(kernel: &mut Context, wiring: &Wiring) -> Result<(), DataplaneError> {
    let host = &wiring.host_ifname;
    let ifb = ifb_name(host);
    let mut ours = Vec::new();
    for (name, kind, mac) in [(host, "veth", Some(wiring.host_mac)), (&ifb, "ifb", None)] {
        let found = query::link(&mut kernel.socket, LinkId::Name(name.as_str()));
        let found = found.map_err(failed(format!("{name}: looking for the link")))?;
        let own = |l: &ActualLink| l.kind == kind && (mac.is_none() || l.mac == mac);
        match found {
            Some(link) if own(&link) => ours.push(link.index),
            Some(link) => tracing::warn!(interface = %name, kind = link.kind,
                "this device has the name of a pod's link and is not netd's; left alone"),
            None => {}
        }
    }
    match ours.is_empty() {
        true => Ok(()),
        false => detach_made(kernel, host, &ours),
    }
}

/// Detaches the links with these indexes.
pub(crate) fn detach_made(
    kernel: &mut Context,
    host: &IfName,
    made: &[u32],
) -> Result<(), DataplaneError> {
    detach_all(kernel, made.iter().map(|index| LinkId::Index(*index))).map_err(|e| e.of(host))
}

/// Why links could not be detached.
enum DetachError {
    Socket(io::Error),
    Refused(Refusal),
}

impl DetachError {
    fn of(self, host: &IfName) -> DataplaneError {
        let what = format!("{host}: taking the link down");
        match self {
            Self::Socket(e) => failed(what)(e),
            Self::Refused(refusal) => refused(what, &refusal),
        }
    }
}

fn detach_all<'a>(
    kernel: &mut Context,
    links: impl Iterator<Item = LinkId<'a>>,
) -> Result<(), DetachError> {
    let group = kernel.shared.link_groups.next();
    let mut batch = Batch::new();
    links.for_each(|which| batch.route(link::detach(which, group), 0));
    let results = kernel.socket.batch(batch).map_err(DetachError::Socket)?;
    kernel.shared.link_groups.occupied(group);
    let refusals = results.into_iter().filter_map(Result::err);
    match refusals.into_iter().find(|refusal| refusal.errno != libc::ENODEV) {
        Some(refusal) => Err(DetachError::Refused(refusal)),
        None => Ok(()),
    }
}

/// Deletes every detached link; they are gone from the kernel when this returns.
pub(crate) fn delete_detached(kernel: &mut Context) -> Result<(), DataplaneError> {
    find_leftovers(kernel)?;
    let what = "deleting detached links";
    // One group at a time: after a failure the next call finds the others.
    loop {
        let next = kernel.shared.link_groups.pop();
        let Some(group) = next else { return Ok(()) };
        let result = kernel.one(|batch| batch.route(link::delete_group(group), 0));
        let result = result.map_err(failed(what)).and_then(|answer| match answer {
            // ENODEV: the links went with their sandboxes.
            Err(refusal) if refusal.errno != libc::ENODEV => Err(refused(what, &refusal)),
            _ => Ok(()),
        });
        if result.is_err() {
            kernel.shared.link_groups.occupied(group);
            return result;
        }
    }
}

/// Looks once for detached links of an earlier netd process.
fn find_leftovers(kernel: &mut Context) -> Result<(), DataplaneError> {
    if kernel.shared.link_groups.is_complete() {
        return Ok(());
    }
    let mut links = of_kind(kernel, InfoKind::Veth)?;
    links.extend(of_kind(kernel, InfoKind::Ifb)?);
    kernel.shared.link_groups.complete(links.iter().map(|link| link.group));
    Ok(())
}

/// Deletes an endpoint's devices and waits for it. Leaves devices of other kinds alone.
pub(crate) fn remove(kernel: &mut Context, host: &IfName) -> Result<(), DataplaneError> {
    let ifb = ifb_name(host);
    for (name, kind) in [(host, "veth"), (&ifb, "ifb")] {
        let what = format!("{name}: removing the link");
        let found = query::link(&mut kernel.socket, LinkId::Name(name.as_str()));
        let Some(index) = found.map_err(failed(&what))?.filter(|l| l.kind == kind).map(|l| l.index)
        else {
            continue;
        };
        let result = kernel.one(|batch| batch.route(link::delete(LinkId::Index(index)), 0));
        match result.map_err(failed(&what))? {
            Err(refusal) if refusal.errno != libc::ENODEV => return Err(refused(what, &refusal)),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes a veth that leads into a pod, if it still does, and waits for it.
pub(crate) fn remove_pod_link(kernel: &mut Context, name: &str) -> Result<(), DataplaneError> {
    if let Some(host) = name.parse().ok().filter(is_host_name) {
        return remove(kernel, &host);
    }
    let what = format!("{name}: removing the link");
    let found = query::link(&mut kernel.socket, LinkId::Name(name)).map_err(failed(&what))?;
    let Some(link) = found.filter(leads_into_a_namespace) else { return Ok(()) };
    let result = kernel.one(|batch| batch.route(link::delete(LinkId::Index(link.index)), 0));
    match result.map_err(failed(&what))? {
        Err(refusal) if refusal.errno != libc::ENODEV => Err(refused(what, &refusal)),
        _ => Ok(()),
    }
}

/// Every endpoint that has a device on the host: the host's side of its veth, or only the
/// device that limits what the pod sends (the veth went with the sandbox).
pub(crate) fn host_links(kernel: &mut Context) -> Result<Vec<HostLink>, DataplaneError> {
    let mut found: Vec<HostLink> = of_kind(kernel, InfoKind::Veth)?
        .iter()
        .filter_map(|link| as_host_link(link, link.name.parse().ok()?))
        .collect();
    let ifbs = of_kind(kernel, InfoKind::Ifb)?;
    let known: HashSet<_> = found.iter().map(|l| l.ifname.clone()).collect();
    let alone = ifbs.iter().filter_map(|link| as_host_link(link, host_name(&link.name)?));
    found.extend(alone.filter(|link| !known.contains(&link.ifname)));
    Ok(found)
}

fn as_host_link(link: &ActualLink, ifname: IfName) -> Option<HostLink> {
    let (detached, lives) = (is_detached(link.group), leads_into_a_namespace(link));
    let (index, is_pair) = (link.index, link.kind == "veth");
    is_host_name(&ifname).then_some(HostLink { ifname, detached, lives, is_pair, index })
}

pub(super) fn of_kind(
    kernel: &mut Context,
    kind: InfoKind,
) -> Result<Vec<ActualLink>, DataplaneError> {
    let name = kind.to_string();
    let request = link::get_all(Some(kind));
    let all = kernel.socket.dump_moving(&request).map_err(failed("listing links"))?;
    let links = all.iter().filter_map(query::read_link).filter(|link| link.kind == name);
    let unique: HashMap<u32, ActualLink> = links.map(|link| (link.index, link)).collect();
    Ok(unique.into_values().collect())
}
