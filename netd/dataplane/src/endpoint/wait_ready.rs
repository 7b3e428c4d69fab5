//! The end of an attach: packets pass.

use std::{io, net::IpAddr, time::Duration};

use super::{
    apply::{Applier, LINK_ATTRIBUTES},
    link_state,
};
use crate::{
    DataplaneError,
    error::failed,
    netlink::{
        Batch, Received, Socket, attribute,
        link::{self, LinkId},
        route,
    },
};
use netd_domain::{Wiring, WiringDriver};

/// `IFLA_OPERSTATE`, and `IF_OPER_UP` as its value.
const IFLA_OPERSTATE: u16 = 16;
const OPERSTATE_UP: u8 = 6;

impl Applier<'_> {
    /// Waits until packets pass both sides. A link that got its carrier drops what
    /// is sent through it until the kernel's link watcher has looked at it, in its own
    /// time (net/core/link_watch.c); likewise the bridge with its first port. Asking for
    /// the link makes the kernel look, from 6.8 on; before, we ask until it has. And
    /// IPv6 takes packets to an address only when its workqueue has been at it, also
    /// without DAD (addrconf_dad_start in net/ipv6/addrconf.c).
    ///
    /// # Errors
    /// The socket's.
    pub(crate) fn wait_ready(&mut self) -> Result<(), DataplaneError> {
        if link_state::tells_all() && self.carries_ipv4() {
            return Ok(());
        }
        const LOOKS: usize = 50;
        const PAUSE: Duration = Duration::from_micros(200);
        for _ in 0..LOOKS {
            let mut batch = Batch::new();
            for index in [Some(self.indexes.host), self.indexes.bridge].into_iter().flatten() {
                batch.route(link::get(LinkId::Index(index)), 0);
            }
            batch.quieten();
            let what = || format!("{}: look whether it carries packets", self.wiring.host_ifname);
            let (_, links) = self.kernel.socket.exchange(batch).map_err(failed(what()))?;
            let there = match &mut self.pod {
                Some(pod) => at_home(pod, self.indexes.pod, self.wiring).map_err(failed(what()))?,
                None => true,
            };
            if there && !links.is_empty() && links.iter().all(carries) {
                return Ok(());
            }
            #[allow(clippy::disallowed_methods)] // this thread's only work is this endpoint
            std::thread::sleep(PAUSE);
        }
        // Somebody set the bridge down, say: drift, and mended as such.
        tracing::debug!(interface = %self.wiring.host_ifname, "it has no carrier yet");
        Ok(())
    }

    /// As `wait_ready`, at once; `false`: it does not, or IPv6 is to be looked at too.
    fn carries_ipv4(&self) -> bool {
        let Some(pod) = &self.pod else { return false };
        let bridge = match &self.wiring.driver {
            WiringDriver::Bridge(name) => Some(name),
            WiringDriver::Routed => None,
        };
        let mut host = [Some(&self.wiring.host_ifname), bridge].into_iter().flatten();
        let has = |socket, name| link_state::has(socket, name).unwrap_or(false);
        self.wiring.addresses.iter().all(|a| a.address.addr().is_ipv4())
            && has(pod, &self.wiring.ifname)
            && host.all(|name| has(&self.kernel.socket, name))
    }
}

/// Whether the sandbox's end, of the index `link`, carries packets and takes those to its
/// IPv6 addresses.
fn at_home(pod: &mut Socket, link: u32, wiring: &Wiring) -> io::Result<bool> {
    let mut batch = Batch::new();
    batch.route(link::get(LinkId::Index(link)), 0);
    for ip in wiring.addresses.iter().map(|a| a.address.addr()).filter(IpAddr::is_ipv6) {
        batch.route(route::look_up(ip), 0);
    }
    let asked = batch.len();
    batch.quieten();
    let (_, answers) = pod.exchange(batch)?;
    let ready = |answer: &Received| match answer.kind {
        libc::RTM_NEWLINK => carries(answer),
        _ => answer.route().is_some_and(|route| route::is_local(&route)),
    };
    Ok(answers.len() == asked && answers.iter().all(ready))
}

/// Whether a link's operational state is up (RFC 2863).
fn carries(message: &Received) -> bool {
    let state =
        message.body().get(LINK_ATTRIBUTES..).and_then(|all| attribute::find(all, IFLA_OPERSTATE));
    state.and_then(|state| state.first()) == Some(&OPERSTATE_UP)
}
