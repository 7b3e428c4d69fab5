//! The dataplane's operations on endpoints.

use std::{collections::HashSet, sync::Arc};

use netd_domain::{IfName, Mac, PodSide, RepairScope, Wiring};

use super::{adopt, announce, attach, cnm, plan::Inside, pod_links, reconcile, teardown};
use crate::{
    Attached, Dataplane, DataplaneError, HostLink, Netns, PodLink, Repair, Seen,
    exec::context::Context,
};

impl Dataplane {
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
        self.announcer.call(move |()| announce::announce(&netns, &wiring)).await
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
}
