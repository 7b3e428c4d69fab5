//! Waits at the end of an attach until packets pass.

use std::{io, net::IpAddr, time::Duration};

use super::apply::Applier;
use crate::{
    DataplaneError,
    error::failed,
    netlink::{
        Batch, Received, Socket, attribute,
        link::{self, LINK_ATTRIBUTES, LinkId},
        route,
    },
};
use netd_domain::Wiring;

/// `IFLA_OPERSTATE`, and `IF_OPER_UP` as its value.
const IFLA_OPERSTATE: u16 = 16;
const OPERSTATE_UP: u8 = 6;

impl Applier<'_> {
    /// Waits until both sides pass packets.
    ///
    /// A link that has just got its carrier drops packets until the kernel's link watcher has
    /// seen the carrier, which takes a while (net/core/link_watch.c); so does a bridge with
    /// its first port. From Linux 6.8 on, a request for the link makes the watcher run; with
    /// older kernels netd asks until it has run. IPv6 accepts packets to an address only
    /// after its workqueue has handled it, even without DAD (addrconf_dad_start in
    /// net/ipv6/addrconf.c).
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn wait_ready(&mut self) -> Result<(), DataplaneError> {
        const MAX_TRIES: usize = 50;
        const PAUSE: Duration = Duration::from_micros(200);
        for _ in 0..MAX_TRIES {
            let mut batch = Batch::new();
            for index in [Some(self.indexes.host), self.indexes.bridge].into_iter().flatten() {
                batch.route(link::get(LinkId::Index(index)), 0);
            }
            batch.quieten();
            let what = || format!("{}: asking whether it passes packets", self.wiring.host_ifname);
            let (_, links) = self.kernel.socket.exchange(batch).map_err(failed(what()))?;
            let ready = match &mut self.pod {
                Some(pod) => {
                    pod_is_ready(pod, self.indexes.pod, self.wiring).map_err(failed(what()))?
                }
                None => true,
            };
            if ready && !links.is_empty() && links.iter().all(is_up) {
                return Ok(());
            }
            #[allow(clippy::disallowed_methods)] // this thread's only work is this endpoint
            std::thread::sleep(PAUSE);
        }
        // For example, an administrator has set the bridge down: that is drift, which the
        // next repair puts right.
        tracing::debug!(interface = %self.wiring.host_ifname, "it has no carrier yet");
        Ok(())
    }
}

/// Whether the pod's side, of the index `link`, passes packets and accepts those to its IPv6
/// addresses.
fn pod_is_ready(pod: &mut Socket, link: u32, wiring: &Wiring) -> io::Result<bool> {
    let mut batch = Batch::new();
    batch.route(link::get(LinkId::Index(link)), 0);
    for ip in wiring.addresses.iter().map(|a| a.address.addr()).filter(IpAddr::is_ipv6) {
        batch.route(route::look_up(ip), 0);
    }
    let asked = batch.len();
    batch.quieten();
    let (_, answers) = pod.exchange(batch)?;
    let ok = |answer: &Received| match answer.kind {
        libc::RTM_NEWLINK => is_up(answer),
        _ => answer.route().is_some_and(|route| route::is_local(&route)),
    };
    Ok(answers.len() == asked && answers.iter().all(ok))
}

/// Whether a link's operational state is up (RFC 2863).
fn is_up(message: &Received) -> bool {
    let state =
        message.body().get(LINK_ATTRIBUTES..).and_then(|all| attribute::find(all, IFLA_OPERSTATE));
    state.and_then(|state| state.first()) == Some(&OPERSTATE_UP)
}
