//! Links on their way out.
//!
//! Removing a veth costs its caller 20 ms in `rcu_barrier`, after the link is gone, and
//! no less for ten of them in one message; removing a whole link group costs it once.
//! So a detach parks (down, in our group) and the reaper removes the group.

use netlink_packet_route::link::InfoKind;

use super::{
    DataplaneError, HostLink,
    kernel::{Kernel, failed, refused},
    message::link::{self, Which},
    naming::{host_name, ifb_name, is_host_name},
    netlink::Batch,
    observe,
    plan::ActualLink,
};
use crate::domain::IfName;

/// The link group of parked links: "nd" and a number nobody else is likely to use.
pub const PARKED: u32 = 0x6e64_0001;

/// Takes an endpoint's devices down and leaves them to the reaper. Missing ones are fine.
pub fn park(kernel: &mut Kernel, host: &IfName, limited: bool) -> Result<(), DataplaneError> {
    let ifb = ifb_name(host);
    let names = [Some(host), limited.then_some(&ifb)];
    let mut batch = Batch::new();
    for name in names.into_iter().flatten() {
        batch.route(link::park(Which::Name(name.as_str()), PARKED), 0);
    }
    let what = || format!("{host}: taking the link down");
    let results = kernel.socket.batch(batch).map_err(failed(what()))?;
    for refusal in results.into_iter().filter_map(Result::err) {
        if refusal.errno != libc::ENODEV {
            return Err(refused(what(), &refusal));
        }
    }
    Ok(())
}

/// Removes every parked link; they are gone from the kernel when this returns.
pub fn reap(kernel: &mut Kernel) -> Result<(), DataplaneError> {
    let what = "removing parked links";
    let result = kernel.one(|batch| batch.route(link::delete_group(PARKED), 0));
    match result.map_err(failed(what))? {
        // ENODEV: none is parked.
        Err(refusal) if refusal.errno != libc::ENODEV => Err(refused(what, &refusal)),
        _ => Ok(()),
    }
}

/// Removes an endpoint's devices at once, whatever state they are in. Only netd's own
/// kinds of device under netd's names.
pub fn remove(kernel: &mut Kernel, host: &IfName) -> Result<(), DataplaneError> {
    let ifb = ifb_name(host);
    for (name, kind) in [(host, "veth"), (&ifb, "ifb")] {
        let what = format!("{name}: removing the link");
        let found = observe::link(&mut kernel.socket, Which::Name(name.as_str()));
        let Some(index) = found.map_err(failed(&what))?.filter(|l| l.kind == kind).map(|l| l.index)
        else {
            continue;
        };
        let result = kernel.one(|batch| batch.route(link::delete(Which::Index(index)), 0));
        match result.map_err(failed(&what))? {
            Err(refusal) if refusal.errno != libc::ENODEV => return Err(refused(what, &refusal)),
            _ => {}
        }
    }
    Ok(())
}

/// Every endpoint that has a device on the host: its veth's host side, or only the
/// device that limits what it sends (its veth went with the sandbox).
pub fn host_links(kernel: &mut Kernel) -> Result<Vec<HostLink>, DataplaneError> {
    let mut found: Vec<HostLink> = of_kind(kernel, InfoKind::Veth)?
        .iter()
        .filter_map(|link| as_host_link(link, link.name.parse().ok()?))
        .collect();
    let ifbs = of_kind(kernel, InfoKind::Ifb)?;
    let known: std::collections::HashSet<_> = found.iter().map(|l| l.ifname.clone()).collect();
    let alone = ifbs.iter().filter_map(|link| as_host_link(link, host_name(&link.name)?));
    found.extend(alone.filter(|link| !known.contains(&link.ifname)));
    Ok(found)
}

fn as_host_link(link: &ActualLink, ifname: IfName) -> Option<HostLink> {
    let parked = link.group == PARKED;
    is_host_name(&ifname).then_some(HostLink { ifname, parked, index: link.index })
}

fn of_kind(kernel: &mut Kernel, kind: InfoKind) -> Result<Vec<ActualLink>, DataplaneError> {
    let name = kind.to_string();
    let all = kernel.socket.dump(link::get_all(Some(kind))).map_err(failed("listing links"))?;
    Ok(all.iter().filter_map(observe::read_link).filter(|l| l.kind == name).collect())
}
