//! Pod wiring as a library: makes wirings and overlay peers true in the kernel, and reports
//! what differs.
//!
//! Its only state are sockets and the detached links that are still to be deleted. Every
//! operation is idempotent. `netlink/socket.rs` is the only file that opens netlink sockets,
//! and `exec/namespace.rs` the only one that calls `setns`.
//!
//! `endpoint/` plans and makes a pod's links, `network/` bridges, `overlay/` the devices and
//! routes to other nodes, and `firewall/` the nftables table; `netlink/` has the messages for
//! all of them. Blocking work is done by threads: one each for attaches, repairs, the deletion
//! of detached links (the reaper), the overlay, the firewall, stale flows and the events.
//!
#![doc = include_str!("../README.md")]

mod device_names;
mod endpoint;
pub mod error;
mod events;
mod exec;
mod firewall;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod netlink;
mod network;
mod overlay;
pub mod program;
mod sysctl;
mod types;
mod version;

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use self::{
    endpoint::attach::Helpers,
    exec::{
        context::{Context, SharedContext},
        worker::Worker,
    },
    firewall::{conntrack::Flows, worker::Rules},
    overlay::worker::Overlay,
};
pub use device_names::DOCKER0;
pub use endpoint::cnm::Seen;
pub use error::DataplaneError;
pub use events::EventsTrouble;
pub use exec::cpu_affinity::may_use_every_cpu;
pub use exec::{
    namespace::{self, Netns},
    pulse::Silence,
};
pub use firewall::{FirewallSettings, FirewallState, HostListener};
pub use overlay::{
    DeviceCounters, KernelRoute, OverlayCapabilities, OverlayReport, OverlaySubject,
    UnderlayChoice, UnderlayFound,
};
pub use sysctl::{kernel_release, net_settings};
pub use types::{Attached, Drift, HostLink, PodLink, Repair, RepairKind, Settings};

/// The dataplane of one node.
#[derive(Debug)]
pub struct Dataplane {
    links: Worker<Context>,
    repairs: Worker<Context>,
    overlay: Worker<Overlay>,
    announcer: Worker<()>,
    helpers: Helpers,
    listening: events::Listening,
    shared: Arc<SharedContext>,
}

impl Dataplane {
    /// Starts the threads. The receiver gets what may have been lost or changed by others; the
    /// same drift often comes many times, and the reader has to merge it. Objects of an
    /// earlier process are watched from their first `repair` or `ensure_network` on.
    ///
    /// # Errors
    /// `Io` without netlink or permission, or when no thread can be started.
    pub fn start(
        settings: Settings,
    ) -> Result<(Arc<Self>, UnboundedReceiver<Drift>), DataplaneError> {
        let (drift, receiver) = tokio::sync::mpsc::unbounded_channel();
        let home = settings.host_netns.clone();
        let rules_settings = settings.firewall.clone();
        let shared = Arc::new(SharedContext { settings, ..SharedContext::default() });
        let kernel = |name: &'static str| {
            let shared = shared.clone();
            Worker::start(name, home.clone(), move || Context::open(shared))
        };
        let rules = Worker::start("netd-firewall", home.clone(), || Rules::open(rules_settings))?;
        let rules = if shared.settings.kernel_hints { rules.helping() } else { rules };
        let own = rules.begin(|rules| Ok(rules.own_changes())).wait()?;
        let published = rules.begin(|rules| Ok(rules.published())).wait()?;
        let flows = Worker::start("netd-flows", home.clone(), move || Flows::open(published))?;
        let (links, repairs) = (kernel("netd-links")?, kernel("netd-repairs")?);
        let state = shared.clone();
        let overlay = Worker::start("netd-overlay", home.clone(), move || Overlay::open(state))?;
        let quiet = overlay.begin(|overlay| Ok(overlay.port())).wait()?;
        let dataplane = Self {
            links,
            repairs,
            overlay,
            announcer: Worker::start("netd-announce", home.clone(), || Ok(()))?,
            helpers: Helpers { rules, flows, reaper: kernel("netd-reaper")? },
            listening: events::listen(shared.clone(), quiet, own, drift)?,
            shared,
        };
        Ok((Arc::new(dataplane), receiver))
    }

    /// Threads that hang, other than the one that listens to events. To be asked every few
    /// seconds.
    pub fn hanging(&self) -> Vec<Silence> {
        let Helpers { rules, flows, reaper } = &self.helpers;
        let all = [
            self.links.silence(),
            self.repairs.silence(),
            self.overlay.silence(),
            rules.silence(),
            flows.silence(),
            reaper.silence(),
        ];
        all.into_iter().flatten().collect()
    }

    /// Why changes by other programs go unnoticed now; `None`: they are noticed. To be asked
    /// every few seconds.
    pub fn events_trouble(&self) -> Option<EventsTrouble> {
        self.listening.trouble()
    }
}
