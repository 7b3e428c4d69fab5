//! The kernel's WireGuard devices are compared with what is wanted now and then: WireGuard sends
//! no events, so nobody hears of what `wg set` changed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{core::Overlay, local_node::LocalNode};
use netd_cluster::desired::Desired;
use netd_domain::overlay::{DeviceKind, OverlayState};

/// Between two looks, on average.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// By so much a look is earlier or later, so that not all nodes look at once.
const JITTER: f64 = 0.25;

/// Looks until netd ends. What differs is put right by the comparison of everything.
pub(super) async fn run(overlay: Arc<Overlay>, node: Arc<dyn LocalNode>) {
    loop {
        let factor = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
        tokio::time::sleep(LOOK_INTERVAL.mul_f64(factor)).await;
        overlay.look_at_wireguard(&*node).await;
    }
}

impl Overlay {
    async fn look_at_wireguard(&self, node: &dyn LocalNode) {
        let state = self.state.lock().await;
        let Some(desired) = state.desired.as_ref().filter(|_| state.settled) else { return };
        let Some(wanted) = wireguard_of(desired, |_| true) else { return };
        let wanted = OverlayState { partial: !state.complete, ..wanted };
        match node.dataplane().wireguard_differences(wanted).await {
            Ok(differences) if differences.is_empty() => {}
            Ok(differences) => {
                let first = &differences[0];
                let count = differences.len();
                tracing::warn!(count, "WireGuard was changed by another program: {first}");
                node.retry_overlay();
            }
            Err(error) => tracing::warn!(%error, "WireGuard can't be compared: {error}"),
        }
    }
}

/// In what the way to `ip` through WireGuard differs; `None`: in nothing, or it does not lead
/// there.
pub(super) async fn difference_to(
    node: &dyn LocalNode,
    desired: &Desired,
    ip: IpAddr,
) -> Option<String> {
    let wanted = wireguard_of(desired, |peer| peer.allowed.iter().any(|net| net.contains(&ip)))?;
    if wanted.wireguard.is_empty() {
        return None;
    }
    let wanted = OverlayState { partial: true, ..wanted };
    match node.dataplane().wireguard_differences(wanted).await {
        Ok(differences) => differences.into_iter().next(),
        Err(error) => Some(error.to_string()),
    }
}

/// What is wanted of the kernel's WireGuard devices, and of some of their peers; `None`: there
/// are no such devices.
fn wireguard_of(
    desired: &Desired,
    counts: impl Fn(&netd_domain::overlay::WireguardPeer) -> bool,
) -> Option<OverlayState> {
    let is_wireguard = |kind: &DeviceKind| matches!(kind, DeviceKind::Wireguard { .. });
    let devices = desired.local_plan().devices.iter().filter(|device| is_wireguard(&device.kind));
    let devices: Vec<_> = devices.cloned().collect();
    let wireguard = desired.wireguard().into_iter().filter(|(_, peer)| counts(peer));
    (!devices.is_empty()).then(|| OverlayState {
        wireguard: wireguard.collect(),
        devices,
        ..OverlayState::default()
    })
}
