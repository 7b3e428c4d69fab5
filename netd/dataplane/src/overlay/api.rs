//! What a [`Dataplane`] does for the overlay.

use std::{net::IpAddr, sync::Arc};

use super::{
    lookup::{DeviceCounters, KernelRoute, OverlayCapabilities, UnderlayChoice, UnderlayFound},
    report::OverlayReport,
    worker::Overlay,
};
use crate::{Dataplane, DataplaneError};
use netd_domain::{
    IfName, Mac,
    overlay::{OverlayChange, OverlayState},
};

impl Dataplane {
    /// Reads what the kernel holds, makes true what `wanted` says, adopts what is right,
    /// and removes everything else that is netd's. From then on a change by another program
    /// is a [`crate::Drift::Overlay`].
    ///
    /// # Errors
    /// The kernel can't be asked; what it refuses is in the report.
    pub async fn sync_overlay(
        &self,
        wanted: Arc<OverlayState>,
    ) -> Result<OverlayReport, DataplaneError> {
        self.overlay.call(move |overlay| overlay.sync(&wanted)).await
    }

    /// Makes a change without reading the kernel's tables, so its cost does not grow with
    /// the number of peers. The devices have to exist (see [`Dataplane::sync_overlay`]).
    ///
    /// # Errors
    /// As for `sync_overlay`.
    pub async fn change_overlay(
        &self,
        change: OverlayChange,
    ) -> Result<OverlayReport, DataplaneError> {
        self.overlay.call(move |overlay| overlay.change(&change)).await
    }

    /// What kinds of devices the kernel can make (it loads their modules if it has to);
    /// none is made.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn overlay_capabilities(&self) -> Result<OverlayCapabilities, DataplaneError> {
        self.overlay.call(Overlay::capabilities).await
    }

    /// Which way the kernel sends packets to `ip`; `None`: no way, or one to nowhere.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn route_to(&self, ip: IpAddr) -> Result<Option<KernelRoute>, DataplaneError> {
        self.overlay.call(move |overlay| overlay.route_to(ip)).await
    }

    /// The MAC of a vxlan device that another program made; `None`: there is no such device, or it
    /// has netd's mark.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn foreign_vtep(
        &self,
        device: IfName,
        vni: u32,
    ) -> Result<Option<Mac>, DataplaneError> {
        self.overlay.call(move |overlay| overlay.foreign_vtep(&device, vni)).await
    }

    /// Whether a tunnel process has a device of this name, with netd's mark.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn has_tunnel(&self, device: IfName) -> Result<bool, DataplaneError> {
        self.overlay.call(move |overlay| overlay.has_tunnel(&device)).await
    }

    /// In what the kernel's WireGuard devices differ from what is wanted, in words: their keys,
    /// ports and peers; other peers than those of `wanted` do not count if that is partial.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn wireguard_differences(
        &self,
        wanted: OverlayState,
    ) -> Result<Vec<String>, DataplaneError> {
        self.overlay.call(move |overlay| overlay.compare_wireguard(&wanted)).await
    }

    /// That a UDP port is taken, and by whom, in words. `device`: needs the port. `refusal`: what
    /// the system said.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn port_taken(
        &self,
        port: u16,
        device: IfName,
        refusal: String,
    ) -> Result<String, DataplaneError> {
        self.overlay.call(move |overlay| Ok(overlay.taken(port, &device, &refusal))).await
    }

    /// Counters of devices; missing devices are left out.
    ///
    /// # Errors
    /// The kernel can't be asked.
    pub async fn device_counters(
        &self,
        names: Vec<IfName>,
    ) -> Result<Vec<DeviceCounters>, DataplaneError> {
        self.overlay.call(move |overlay| overlay.counters(&names)).await
    }

    /// The device that leads to the other nodes. From then on a change of it (MTU,
    /// addresses, up, down, gone) is a [`crate::Drift::Overlay`].
    ///
    /// # Errors
    /// There is none, in words.
    pub async fn underlay_of(
        &self,
        choice: UnderlayChoice,
    ) -> Result<UnderlayFound, DataplaneError> {
        self.overlay.call(move |overlay| overlay.underlay_of(&choice)).await
    }
}
