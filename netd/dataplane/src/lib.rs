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
pub mod firewall;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod netlink;
mod network;
mod overlay;
pub mod program;
mod sysctl;
mod types;

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc::UnboundedReceiver;

use self::{
    endpoint::{
        adopt,
        announce::Announcer,
        attach::{self, Helpers},
        cnm,
        plan::Inside,
        pod_links, reconcile, teardown,
    },
    error::failed,
    exec::{
        context::{Context, SharedContext},
        worker::Worker,
    },
    firewall::{conntrack::Flows, worker::Rules},
    overlay::worker::Overlay,
};
pub use endpoint::cnm::Seen;
pub use error::DataplaneError;
pub use events::EventsTrouble;
pub use exec::{
    namespace::{self, Netns},
    pulse::Silence,
};
pub use firewall::{FirewallSettings, FirewallState, HostListener};
pub use overlay::{
    DeviceCounters, KernelRoute, OverlayCapabilities, OverlayReport, OverlaySubject,
    UnderlayChoice, UnderlayFound,
};
pub use sysctl::kernel_release;
pub use types::{Attached, Drift, HostLink, PodLink, Repair, RepairKind, Settings};

use netd_domain::{HostNetwork, IfName, Mac, NetworkWiring, PodSide, RepairScope, Wiring};

/// The dataplane of one node.
#[derive(Debug)]
pub struct Dataplane {
    links: Worker<Context>,
    repairs: Worker<Context>,
    overlay: Worker<Overlay>,
    announcer: Worker<Announcer>,
    helpers: Helpers,
    listening: events::Listening,
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
        let rules =
            Worker::start("netd-firewall", home.clone(), move || Rules::open(rules_settings))?
                .helping();
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
            announcer: Worker::start("netd-announce", home.clone(), Announcer::open)?,
            helpers: Helpers { rules, flows, reaper: kernel("netd-reaper")? },
            listening: events::listen(shared.clone(), quiet, own, drift)?,
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

    /// Makes an endpoint that has nothing in the kernel yet; on failure nothing is left.
    ///
    /// # Errors
    /// `InterfaceExists` when either name is taken, `PortTaken`, `Kernel`.
    pub async fn attach(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<Attached, DataplaneError> {
        let helpers = self.helpers.clone();
        self.links
            .call(move |k| attach::attach(k, &helpers, &netns, &wiring, PodSide::Placed))
            .await
    }

    /// Tells the neighbours of a bridged pod where its addresses are (gratuitous ARP, unsolicited
    /// neighbour advertisements). Has a thread of its own: no attach waits for it.
    ///
    /// # Errors
    /// `Io`: the interface is not there, or the system refused.
    pub async fn announce(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<(), DataplaneError> {
        self.announcer.call(move |announcer| announcer.announce(&netns, &wiring)).await
    }

    /// Compares an endpoint with the kernel and makes it right, also after an attach that was
    /// interrupted. Returns what it had to do; nothing, if all was right. With
    /// [`RepairScope::Host`] it touches the sandbox only if the pair is lost, or if netd was
    /// stopped before it had set the sandbox's side up.
    ///
    /// # Errors
    /// As for `attach`.
    pub async fn repair(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
        scope: RepairScope,
    ) -> Result<Vec<Repair>, DataplaneError> {
        let inside = match scope {
            RepairScope::Host => Inside::Nothing,
            RepairScope::Pod => Inside::Restore,
        };
        self.make_right(netns, wiring, inside).await
    }

    /// As [`Dataplane::repair`], for a runtime that asks for the endpoint: what is missing in the
    /// sandbox is made, too.
    ///
    /// # Errors
    /// As for `attach`.
    pub async fn complete(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<Vec<Repair>, DataplaneError> {
        self.make_right(netns, wiring, Inside::Complete).await
    }

    async fn make_right(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
        inside: Inside,
    ) -> Result<Vec<Repair>, DataplaneError> {
        let elements = wiring.clone();
        let ruled = self.helpers.rules.call(move |rules| rules.add(elements));
        let linked = self.repairs.call(move |k| reconcile::repair(k, &netns, &wiring, inside));
        let (ruled, linked) = tokio::join!(ruled, linked);
        ruled.and(linked)
    }

    /// Makes the pair of an endpoint whose pod's side a runtime will move into the sandbox
    /// (CNM); until then it is on the host. Replaces an earlier pair. On failure nothing is
    /// left.
    ///
    /// # Errors
    /// As for `attach`.
    pub async fn prepare(&self, wiring: Arc<Wiring>) -> Result<Attached, DataplaneError> {
        let helpers = self.helpers.clone();
        self.links.call(move |k| cnm::prepare(k, &helpers, &wiring)).await
    }

    /// Where the pod's side of such an endpoint is; `netns` is the sandbox's namespace. As long
    /// as it is not there, drift of the endpoint says when to look again.
    ///
    /// # Errors
    /// `Io`.
    pub async fn locate(
        &self,
        netns: Option<Arc<Netns>>,
        wiring: Arc<Wiring>,
        pod_side: PodSide,
    ) -> Result<Seen, DataplaneError> {
        self.repairs.call(move |k| cnm::locate(k, netns.as_deref(), &wiring, pod_side)).await
    }

    /// Stops watching an endpoint's link: changes of it are no drift from here on.
    ///
    /// # Errors
    /// The thread has died.
    pub async fn forget(&self, ifname: &IfName) -> Result<(), DataplaneError> {
        let ifname = ifname.clone();
        let forget = move |k: &mut Context| {
            k.shared.table.lock().forget(&ifname);
            Ok(())
        };
        self.links.call(forget).await
    }

    /// Whether what netd made of an endpoint is there and works; what does not, in words. On the
    /// host everything has to be as netd made it, in the sandbox the link has to have its
    /// addresses and routes.
    ///
    /// # Errors
    /// `Kernel` or `Io` when the kernel can't be asked.
    pub async fn check(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<Vec<String>, DataplaneError> {
        self.repairs.call(move |k| reconcile::find_failures(k, &netns, &wiring)).await
    }

    /// The MAC that the sandbox's side of an endpoint has now; `None`: it is not there.
    ///
    /// # Errors
    /// As for `check`.
    pub async fn pod_mac(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<Option<Mac>, DataplaneError> {
        self.repairs.call(move |k| reconcile::find_pod_mac(k, &netns, &wiring)).await
    }

    /// How the sandbox's side of an endpoint differs from what netd made there, in words.
    ///
    /// # Errors
    /// As for `check`.
    pub async fn changes_inside(
        &self,
        netns: Arc<Netns>,
        wiring: Arc<Wiring>,
    ) -> Result<Vec<String>, DataplaneError> {
        self.repairs.call(move |k| reconcile::find_changes_inside(k, &netns, &wiring)).await
    }

    /// Removes an endpoint's firewall elements, takes its links down and leaves them to the
    /// reaper. Takes less than a millisecond as a rule. Missing links are no error.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn detach_link(&self, wiring: Arc<Wiring>) -> Result<(), DataplaneError> {
        self.detach(wiring.clone(), move |k| teardown::detach_link(k, &wiring)).await
    }

    /// As [`Dataplane::detach_link`], but looks at the devices first, and leaves one alone that
    /// has the endpoint's name and is not netd's.
    ///
    /// # Errors
    /// `Kernel`, `Io`.
    pub async fn detach_own_link(&self, wiring: Arc<Wiring>) -> Result<(), DataplaneError> {
        self.detach(wiring.clone(), move |k| teardown::detach_own_link(k, &wiring)).await
    }

    async fn detach(
        &self,
        elements: Arc<Wiring>,
        links: impl FnOnce(&mut Context) -> Result<(), DataplaneError> + Send + 'static,
    ) -> Result<(), DataplaneError> {
        let ruled = self.helpers.rules.call(move |rules| rules.remove(&elements));
        let (ruled, linked) = tokio::join!(ruled, self.links.call(links));
        linked.and(ruled)
    }

    /// Deletes every detached link, those of an earlier process too. When it returns, the links
    /// that were detached before the call are gone from the kernel. Takes tens of
    /// milliseconds.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn delete_detached(&self) -> Result<(), DataplaneError> {
        self.helpers.reaper.call(teardown::delete_detached).await
    }

    /// Makes or adopts a network's bridge and its kernel settings. Returns the repairs.
    ///
    /// # Errors
    /// `InterfaceExists` when a device of the bridge's name is no bridge,
    /// `Unsupported`, `Kernel`, `Io`.
    pub async fn ensure_network(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Vec<Repair>, DataplaneError> {
        self.repairs.call(move |k| network::bridge::ensure(k, &network)).await
    }

    /// Describes a device that has the name of the network's bridge and that netd did not make;
    /// `None` if there is none.
    ///
    /// # Errors
    /// `Io`.
    pub async fn in_the_way(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Option<String>, DataplaneError> {
        self.repairs.call(move |k| network::bridge::in_the_way(k, &network)).await
    }

    /// An address of docker0 that lies in one of the network's subnets.
    ///
    /// # Errors
    /// `Io`.
    pub async fn owned_by_docker(
        &self,
        network: Arc<NetworkWiring>,
    ) -> Result<Option<ipnet::IpNet>, DataplaneError> {
        self.repairs.call(move |k| network::bridge::owned_by_docker(k, &network)).await
    }

    /// Takes gateways of pools that are gone off the network's bridge.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_gateways(
        &self,
        network: Arc<NetworkWiring>,
        gone: Vec<ipnet::IpNet>,
    ) -> Result<(), DataplaneError> {
        self.repairs.call(move |k| network::bridge::remove_addresses(k, &network, &gone)).await
    }

    /// The networks that the host itself is in or leads to, without netd's own.
    ///
    /// # Errors
    /// `Io`.
    pub async fn host_networks(&self) -> Result<Vec<HostNetwork>, DataplaneError> {
        let what = "reading the host's addresses and routes";
        self.repairs.call(move |k| network::host_networks::list(k).map_err(failed(what))).await
    }

    /// Removes a network's bridge. A missing one is no error; a device that netd did not make
    /// stays.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_network(&self, network: Arc<NetworkWiring>) -> Result<(), DataplaneError> {
        self.repairs.call(move |k| network::bridge::remove(k, &network)).await
    }

    /// Makes the firewall know the links on the host of these endpoints, which an earlier
    /// version of netd may have made.
    ///
    /// # Errors
    /// `Kernel`, `Io`.
    pub async fn mark_endpoints(&self, known: HashSet<IfName>) -> Result<(), DataplaneError> {
        self.repairs.call(move |k| adopt::mark(k, &known)).await
    }

    /// Every endpoint that has a device on the host, by the name of the host's side.
    ///
    /// # Errors
    /// `Io`.
    pub async fn host_links(&self) -> Result<Vec<HostLink>, DataplaneError> {
        self.repairs.call(teardown::host_links).await
    }

    /// Deletes the devices of an endpoint without a record, and waits for it.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_stray(&self, ifname: &IfName) -> Result<(), DataplaneError> {
        let ifname = ifname.clone();
        self.helpers.reaper.call(move |k| teardown::remove(k, &ifname)).await
    }

    /// The links that lead into pods, but for those named `known`, with the addresses behind
    /// them; `bridges` are those of the networks.
    ///
    /// # Errors
    /// `Io`.
    pub async fn pod_links(
        &self,
        bridges: Vec<IfName>,
        known: HashSet<IfName>,
    ) -> Result<Vec<PodLink>, DataplaneError> {
        self.repairs.call(move |k| pod_links::pod_links(k, &bridges, &known)).await
    }

    /// Deletes a veth that leads into a pod, and netd's device that limits that pod, and waits
    /// for it. A missing one, or one that leads nowhere, is no error and stays.
    ///
    /// # Errors
    /// `Kernel`.
    pub async fn remove_pod_link(&self, name: String) -> Result<(), DataplaneError> {
        self.helpers.reaper.call(move |k| teardown::remove_pod_link(k, &name)).await
    }

    /// MTU of the device of the node's default route, or of the configured one, bytes; 1500 if
    /// there is neither.
    ///
    /// # Errors
    /// `Kernel` when the configured device is not there.
    pub async fn underlay_mtu(&self) -> Result<u32, DataplaneError> {
        self.repairs.call(underlay_mtu).await
    }
}

fn underlay_mtu(kernel: &mut Context) -> Result<u32, DataplaneError> {
    let configured = kernel.shared.settings.underlay.clone();
    let shared = kernel.shared.clone();
    let found = network::underlay::find(&mut kernel.socket, configured.as_ref(), &shared)
        .map_err(failed("looking for the underlay's device"))?;
    match (found, configured) {
        (Some(link), _) => Ok(link.mtu),
        (None, None) => Ok(network::underlay::DEFAULT_MTU),
        (None, Some(name)) => Err(DataplaneError::Kernel {
            operation: format!("looking for the underlay's device {name}"),
            errno: "there is no such device; set another one, or none to follow the default route"
                .into(),
        }),
    }
}
