//! The first attach of an endpoint: all of it, or nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{apply::Applier, op::Side, plan::plan_new, teardown};
use crate::{
    Attached, DataplaneError,
    exec::{context::Context, namespace::Netns, worker::Worker},
    firewall::{conntrack::Flows, worker::Rules},
};
use netd_domain::{PodSide, Route, Wiring};

/// The other threads that an attach needs.
#[derive(Debug, Clone)]
pub(crate) struct Helpers {
    pub rules: Worker<Rules>,
    /// Ends the flows that a change of host ports or addresses made stale.
    pub flows: Worker<Flows>,
    /// Deletes detached links.
    pub reaper: Worker<Context>,
}

/// Makes an endpoint that has nothing in the kernel yet: the links on this thread, and at the
/// same time the firewall's elements on the firewall's thread.
pub(crate) fn attach(
    kernel: &mut Context,
    helpers: &Helpers,
    netns: &Netns,
    wiring: &Arc<Wiring>,
    pod_side: PodSide,
) -> Result<Attached, DataplaneError> {
    let elements = wiring.clone();
    let pending = helpers.rules.begin(move |rules| {
        let start = Instant::now();
        rules.add(elements).map(|()| start.elapsed())
    });
    let linked = links(kernel, helpers, netns, wiring, pod_side);
    let ruled = pending.wait();
    match (linked, ruled) {
        (Ok((kernel, skipped_routes)), Ok(firewall)) => {
            if !wiring.port_mappings.is_empty() {
                // Clients that came before the pod would never reach it.
                let end = |flows: &mut Flows| {
                    flows.end_stale(&[]);
                    Ok(())
                };
                helpers.flows.begin(end).wait()?;
            }
            Ok(Attached { kernel, firewall, skipped_routes })
        }
        (linked, ruled) => {
            if linked.is_ok() {
                teardown::detach_link(kernel, wiring)?;
            }
            if ruled.is_ok() {
                let elements = wiring.clone();
                helpers.rules.begin(move |rules| rules.remove(&elements)).wait()?;
            }
            helpers.reaper.begin(teardown::delete_detached).wait()?;
            Err(linked.err().or(ruled.err()).unwrap_or_else(|| unknown_failure(wiring)))
        }
    }
}

fn unknown_failure(wiring: &Wiring) -> DataplaneError {
    let operation = format!("{}: attaching", wiring.host_ifname);
    DataplaneError::Kernel { operation, errno: "failed without a reason".into() }
}

fn links(
    kernel: &mut Context,
    helpers: &Helpers,
    netns: &Netns,
    wiring: &Wiring,
    pod_side: PodSide,
) -> Result<(Duration, Vec<Route>), DataplaneError> {
    let start = Instant::now();
    let first = links_once(kernel, netns, wiring, pod_side);
    let retry = match &first {
        // A detached link, which is still to be deleted, may have the name or the port.
        Err(DataplaneError::InterfaceExists { .. } | DataplaneError::BridgeFull { .. }) => {
            helpers.reaper.begin(teardown::delete_detached).wait()?;
            true
        }
        // Another device may have taken the bridge's place since its index was learnt.
        Err(_) => refresh_bridge(kernel, wiring)?,
        Ok(_) => false,
    };
    if retry { links_once(kernel, netns, wiring, pod_side) } else { first }
        .map(|skipped| (start.elapsed(), skipped))
}

fn links_once(
    kernel: &mut Context,
    netns: &Netns,
    wiring: &Wiring,
    pod_side: PodSide,
) -> Result<Vec<Route>, DataplaneError> {
    let placed = pod_side == PodSide::Placed;
    let mut ops = plan_new(wiring)?;
    // A runtime that moves the pod's side sets it up in the sandbox itself.
    ops.retain(|op| placed || op.side() == Side::Host);
    let bridge = kernel.bridge(wiring)?;
    let mut applier = Applier::for_new(kernel, netns, wiring, pod_side, bridge);
    let wait = |applier: &mut Applier<'_>| if placed { applier.wait_ready() } else { Ok(()) };
    let result = applier.apply(&ops).and_then(|()| wait(&mut applier));
    if result.is_err() {
        applier.undo();
    }
    result.map(|()| applier.skipped)
}

/// Looks the bridge up again. Returns whether its index has changed.
fn refresh_bridge(kernel: &mut Context, wiring: &Wiring) -> Result<bool, DataplaneError> {
    let netd_domain::WiringDriver::Bridge(name) = &wiring.driver else { return Ok(false) };
    let Some(before) = kernel.shared.bridges.lock().remove(name) else { return Ok(false) };
    Ok(kernel.bridge(wiring)? != Some(before))
}
