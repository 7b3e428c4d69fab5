//! netd's nftables: spoofing, isolation, masquerade and host ports.
//!
//! Three tables of one name, `inet netd`, `bridge netd` and `arp netd`, made and
//! repaired as a whole in one transaction ([`Firewall::replace`]). Their rules never
//! change: an endpoint is a handful of set and map elements, put in and taken out by
//! one netlink transaction without running `nft`.
//!
//! What nftables can't do: a packet passes only if *every* base chain of a hook lets it
//! through, so nothing here overrules another table's forward policy of drop (a host
//! firewall's, Docker's). [`Firewall::foreign_forward_drops`] names such chains;
//! those of iptables-legacy are not nftables and are not seen.
//!
//! Host ports don't work towards `::1`: IPv6 has no `route_localnet`. Towards
//! 127.0.0.1 they need `route_localnet` on the bridge (routed: on the host side).

mod attributes;
mod conntrack;
mod elements;
mod foreign;
#[cfg(feature = "fuzzing")]
mod fuzzing;
mod inspect;
mod memory;
mod message;
mod nft;
mod own;
mod rules;
#[cfg(test)]
mod tests;
mod text;
mod transaction;
mod watch;
pub(crate) mod worker;

use std::{path::PathBuf, sync::Arc};

#[cfg(feature = "fuzzing")]
pub(super) use fuzzing::{fuzz, fuzz_state};
pub use own::OwnChanges;
pub use watch::{Foreign, Watcher};

use self::{elements::Element, memory::Applied};
use crate::{
    DataplaneError,
    netlink::{Family, Socket},
};
use netd_domain::{NetworkWiring, Wiring};

/// Name of the tables.
pub const TABLE: &str = "netd";
/// First bytes of the host side's name of every endpoint. A device of such a name
/// that has no elements can send nothing, whoever made it.
pub const PORT_PREFIX: &str = "nd";

/// What the rules depend on besides networks and endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirewallSettings {
    /// The bit of the *conntrack* mark that says "this connection came through one of
    /// our host ports". One bit that nobody else uses.
    pub hostport_mark: u32,
    /// The bit of the packet mark by which kube-proxy asks for masquerade; such
    /// packets are left to it.
    pub kube_proxy_mark: u32,
    /// The `nft` program, 1.0.6 or later; run by [`Firewall::replace`] only.
    pub nft: PathBuf,
    /// Where to remember over a restart what was made; `None`: tables are made anew.
    pub memory: Option<PathBuf>,
}

impl Default for FirewallSettings {
    fn default() -> Self {
        Self { hostport_mark: 0x2000, kube_proxy_mark: 0x4000, nft: "nft".into(), memory: None }
    }
}

/// All that the tables have to hold.
#[derive(Debug, Clone, Default)]
pub struct FirewallState {
    /// This node's networks; their subnets don't overlap.
    pub networks: Vec<Arc<NetworkWiring>>,
    /// The endpoints attached to them.
    pub endpoints: Vec<Arc<Wiring>>,
}

/// The firewall of one network namespace: the one the calling thread was in when it
/// was made. All calls have to come from threads in that namespace. Blocking.
#[derive(Debug)]
pub struct Firewall {
    settings: FirewallSettings,
    socket: Socket,
    own: OwnChanges,
    applied: Option<Applied>,
    /// The kernel knows DESTROYSETELEM (6.3).
    destroys: bool,
}

impl Firewall {
    /// Opens a netlink socket in the calling thread's network namespace; changes nothing.
    ///
    /// # Errors
    /// No nfnetlink in this kernel, or no permission.
    pub fn new(settings: FirewallSettings) -> Result<Self, DataplaneError> {
        let socket = Socket::open(Family::Netfilter).map_err(|e| DataplaneError::Unsupported {
            what: format!("an nfnetlink socket can't be opened: {e}"),
            hint: "nf_tables has to be built in or loadable, and netd needs CAP_NET_ADMIN".into(),
        })?;
        let own = OwnChanges::new(socket.port());
        let applied = Applied::load(settings.memory.as_deref());
        Ok(Self { settings, socket, own, applied, destroys: true })
    }

    /// Makes all tables anew, in one transaction: packets see the old rules or the new,
    /// and connections stay. Runs `nft`; costs tens of milliseconds with 1,000 endpoints.
    ///
    /// # Errors
    /// `PortTaken` when two endpoints of the state want one host port, `Io` when `nft`
    /// can't be run, `Kernel` with nft's words when the rules are refused. Nothing has
    /// changed then.
    pub fn replace(&mut self, state: &FirewallState) -> Result<(), DataplaneError> {
        const TRIES: usize = 3;
        let ruleset = text::ruleset(&self.settings, state)?;
        let base = text::base(&self.settings, state)?;
        self.applied = None;
        memory::keep(self.settings.memory.as_deref(), None);
        for attempt in 1..=TRIES {
            let before = inspect::generation(&mut self.socket)?;
            nft::load(&self.settings.nft, &ruleset, &self.own)?;
            let fingerprint = inspect::fingerprint(&mut self.socket)?;
            // Our transaction is one generation. With more of them somebody may have
            // changed the tables before their picture was taken.
            let ours = inspect::generation(&mut self.socket)? == before.wrapping_add(1);
            if ours || attempt == TRIES {
                self.applied = fingerprint.map(|picture| Applied::new(&base, &picture));
                memory::keep(self.settings.memory.as_deref(), self.applied.as_ref());
                break;
            }
        }
        Ok(())
    }

    /// Puts an endpoint's elements in, all or none, in about 10 us. To be called before
    /// the link carries traffic: without them its host side lets nothing through.
    /// Elements that are there already are fine.
    ///
    /// # Errors
    /// `PortTaken` when another endpoint holds a host port; `Kernel` otherwise, with
    /// ENOENT when the tables are missing ([`Firewall::replace`] makes them).
    pub fn add_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let elements = elements::of_endpoint(wiring);
        transaction::add(&mut self.socket, &elements)
    }

    /// Takes an endpoint's elements out. Those that are missing, or host ports that
    /// another endpoint holds by now, are left alone.
    ///
    /// # Errors
    /// `Kernel`: what it refused.
    pub fn remove_endpoint(&mut self, wiring: &Wiring) -> Result<(), DataplaneError> {
        let mut mine = elements::of_endpoint(wiring);
        for i in (0..mine.len()).rev() {
            if !mine[i].data.is_empty() && !self.holds(&mine[i])? {
                mine.swap_remove(i);
            }
        }
        transaction::remove(&mut self.socket, &mine, &mut self.destroys)
    }

    /// Ends UDP flows that go on past a change of the endpoint's host ports: after
    /// [`Firewall::add_endpoint`] (`attached`) those that began before the ports led
    /// to it, after [`Firewall::remove_endpoint`] those that still lead to it.
    ///
    /// To be called behind the caller's back: the kernel looks through its whole
    /// connection table, 8 ms for each UDP host port and family when it is of the
    /// usual size. Does nothing for an endpoint without UDP host ports.
    pub fn end_stale_udp_flows(&mut self, wiring: &Wiring, attached: bool) {
        if attached {
            conntrack::forget_flows_past(&mut self.socket, wiring);
        } else {
            conntrack::forget_flows_to(&mut self.socket, wiring);
        }
    }

    /// Whether the kernel's map leads from the element's key to the element's data.
    fn holds(&mut self, element: &Element) -> Result<bool, DataplaneError> {
        let found = inspect::lookup(&mut self.socket, element)?;
        Ok(found.is_some_and(|data| data == elements::bytes(&element.data)))
    }

    /// Whether the kernel holds exactly what `state` asks for. `false` unless this
    /// `Firewall` has made the tables itself, or an earlier one that is remembered.
    ///
    /// # Errors
    /// The kernel's tables can't be read.
    pub fn intact(&mut self, state: &FirewallState) -> Result<bool, DataplaneError> {
        let Some(applied) = &self.applied else { return Ok(false) };
        let Some(picture) = inspect::fingerprint(&mut self.socket)? else { return Ok(false) };
        if *applied != Applied::new(&text::base(&self.settings, state)?, &picture) {
            return Ok(false);
        }
        let Ok(wanted) = elements::of_state(state) else { return Ok(false) };
        inspect::holds_exactly(&mut self.socket, &wanted)
    }

    /// Chains of other tables that drop what they don't know on the forward hook, e.g.
    /// `inet firewalld filter_FORWARD (policy drop)`: pods' traffic needs rules there.
    ///
    /// # Errors
    /// The kernel's chains can't be read.
    pub fn foreign_forward_drops(&mut self) -> Result<Vec<String>, DataplaneError> {
        foreign::forward_drops(&mut self.socket)
    }

    /// Netlink port of the socket that changes elements.
    pub fn port(&self) -> u32 {
        self.socket.port()
    }

    /// For a [`Watcher`], to tell this firewall's changes from others'.
    pub fn own_changes(&self) -> OwnChanges {
        self.own.clone()
    }
}

/// Everything of ours that a network namespace holds, gone. For uninstalling.
///
/// # Errors
/// As for [`Firewall::replace`].
pub fn remove_tables(firewall: &mut Firewall) -> Result<(), DataplaneError> {
    firewall.applied = None;
    nft::load(&firewall.settings.nft, &text::removal(), &firewall.own)
}
